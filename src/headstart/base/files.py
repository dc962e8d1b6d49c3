"""Atomic writes of files (text, JSON, CSV), reading them, and their hashes."""

import csv
import hashlib
import io
import json
import os
import re
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from headstart.base.errors import UserError
from headstart.base.one_line import WRITE_ERRORS

STALE_SECONDS = 24 * 3600  # an unfinished file that old belongs to a process that was killed


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Context manager for an atomic write: yields a temporary path beside `path`, which replaces it at the end.

    `with atomic_path(path) as part: save_file(tensors, part)`. Folders are created as needed. After an error nothing
    is left, and an earlier file at `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        with name_write_errors(path, part):
            yield part
            part.replace(path)
    finally:
        with suppress(OSError):  # the error that is being raised matters more
            part.unlink(missing_ok=True)


@contextmanager
def name_write_errors(path: Path, part: Path) -> Iterator[None]:
    """Make errors of writing `part`, the temporary file of `path`, name `path`.

    A failed write() names no file, and libraries in other languages raise errors of their own for a full disk.
    """
    try:
        yield
    except OSError as error:
        if str(error.filename) == str(part) or (error.filename is None and error.errno in WRITE_ERRORS):
            error.filename, error.filename2 = str(path), None
        raise
    except Exception as error:
        # Rust's words for a failed system call: safetensors' "I/O error: No space left on device (os error 28)".
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        raise


def remove_stale_files(folder: Path, pattern: str = "*.part") -> None:
    """Remove a folder's unfinished files older than a day: those that a killed process left."""
    for path in list_files(folder, pattern):
        with suppress(FileNotFoundError):  # another process may have removed it
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: a killed stage leaves no half of it."""
    with atomic_path(path) as part:
        part.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for text, UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """`write_text` for JSON, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def csv_text(header: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """CSV with a header line and one line feed a row; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def json_rows(rows: Iterable[object]) -> str:
    """A JSON array with one element a line, so that a diff can be read."""
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"


def read_json(path: Path) -> Any:
    """The value in a JSON file that headstart wrote.

    Raises:
        UserError: it is damaged since.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no UTF-8, or no JSON
        reason = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else "not UTF-8"
        raise UserError(f"{path}: damaged ({reason}); run `dvc repro` to make it anew") from None


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file that headstart wrote, as dictionaries by the names in its header."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def list_files(folder: Path, pattern: str) -> list[Path]:
    """A folder's files, sorted; empty where the folder is missing, or removed meanwhile."""
    try:
        return sorted(folder.glob(pattern))
    except FileNotFoundError:
        return []


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex; read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def crc32_file(path: Path) -> int:
    """CRC-32 of a file's bytes, read in blocks: notices a disk's damage at several times the speed of SHA-256."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum
