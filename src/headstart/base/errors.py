"""Errors of users, as one line each, and how such a line is worded. Any other error keeps its traceback."""

import difflib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path


class UserError(Exception):
    """A mistake the user can fix: one line that names file, key, value and fix. Exit code 2."""


def missing_file(path: object, fix: str) -> UserError:
    """The error for a file that should exist and does not; in a subfolder of a project the fix is to leave it."""
    root = root_above()
    return UserError(f"{path}: no such file; {f'the project is in {root}: cd {root}' if root else fix}")


def root_above() -> str | None:
    """The way up to the project (the folder with dvc.yaml and params.yaml) from a folder in it, such as `../..`."""
    here = Path.cwd()
    roots = (
        folder for folder in (here, *here.parents) if all((folder / n).exists() for n in ("dvc.yaml", "params.yaml"))
    )
    root = next(roots, here)
    return None if root == here else os.path.relpath(root, here)


def first_line(error: BaseException) -> str:
    """The first line of an exception's message; the exception's type where it has none."""
    return str(error).strip().partition("\n")[0].rstrip() or type(error).__name__


def did_you_mean(
    name: str,
    known: Iterable[str],
    otherwise: str,
    *,
    count: int = 1,
    cutoff: float = 0.6,
    normalize: Callable[[str], str] = str,
) -> str:
    """The fix for a misspelt name: `did you mean 'Goat' or 'Boat'?`, or `otherwise` where no known name is similar.

    Args:
        name: as the user wrote it.
        known: the names that exist.
        otherwise: the fix when none is similar, such as `known are a, b`.
        count: the most names to suggest.
        cutoff: least similarity (difflib's ratio, 0 to 1) of a suggestion.
        normalize: applied to both sides before they are compared, such as `str.casefold`.
    """
    by_normalized = {normalize(one): one for one in known}
    near = difflib.get_close_matches(normalize(name), by_normalized, n=count, cutoff=cutoff)
    return f"did you mean {' or '.join(repr(by_normalized[one]) for one in near)}?" if near else otherwise


def list_some(names: Sequence[str], most: int) -> str:
    """`a, b, c and 5 more`: the first `most` names, and how many follow."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
