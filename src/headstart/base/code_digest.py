"""Hash of the source code that computes something cached: an edit of it is another key."""

import hashlib
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path


def code_digest(code: Sequence[str]) -> str:
    """SHA-256 of the sources of these modules and packages, by their full names, in the order of names; hex.

    The place of the package and the times of its files do not matter.
    """
    return _digest(tuple(sorted(code)))


@cache
def _digest(code: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in code:
        for path in source_files(name):
            digest.update(f"{name} {path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def source_files(name: str) -> list[Path]:
    """The file of a module, or all files of a package, sorted."""
    spec = importlib.util.find_spec(name)
    assert spec is not None, name
    assert spec.origin is not None, name
    file = Path(spec.origin)
    return sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
