"""JSON files of annotations, read so that every mistake in them is one line."""

import json
from pathlib import Path
from typing import Any

from headstart.base.errors import UserError, missing_file


def read_json(path: Path, where: str, fix: str) -> Any:
    """The contents of a JSON file in UTF-8, UTF-16 or UTF-32; `NaN` and `Infinity` are numbers.

    Args:
        path: the file.
        where: how an error line begins: the key of params and the path as written there.
        fix: what to do if the file is missing.

    Raises:
        UserError: the file is missing, is not JSON, is nested too deeply, or gives an object the same key twice
            (the first one's value would be lost).
    """
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=_unique_keys)
    except FileNotFoundError:
        raise missing_file(where, fix) from None
    except RecursionError:
        raise UserError(f"{where}: not annotations: nested too deeply; export it again") from None
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror or error}); name a JSON file") from None
    except ValueError as error:  # also of text that is no Unicode, and of numbers with thousands of digits
        raise UserError(f"{where}: not a JSON file ({error}); export it again") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise ValueError(f"an object has the key {twice[:40]!r} twice")
    return found
