"""What stages keep under .cache to go faster the next time: shown, and cleared.

A stage may run meanwhile. Whole entries are moved away before they are removed; what the stage has mapped into memory
stays readable, and what it lacks it makes again.
"""

import datetime
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from headstart.errors import UserError
from headstart.files import listed, write_text

DAY = 24 * 3600
ABOUT = "about.txt"  # one line on what the entry is; its time is that of the last use
KINDS = {  # kind -> where its entries lie
    "pixels": "*",
    "embeddings": "*",
    "activations": "*",
    "checkpoints": "*/*",
}


@dataclass(frozen=True)
class Entry:
    """One entry: a folder whose name is the hash of all that its content depends on."""

    kind: str
    folder: Path
    words: str  # what was hashed, for people
    count: int  # pictures, or checkpoints
    size: int  # bytes
    used: float  # when last, in seconds since 1970


def use(folder: Path, words: str) -> None:
    """Note that an entry is used now, and what it is. A disk that cannot take the note is no reason to stop."""
    with suppress(OSError):
        write_text(folder / ABOUT, f"{words}\n")


@contextmanager
def making(path: Path) -> Iterator[Path]:
    """Where a file of an entry is written: beside the entry, where nothing clears it. In the end it gets its name.

    Where its entry is being cleared it goes too; what is mapped stays readable. After an error nothing is left.
    """
    beside = path.parent.parent
    beside.mkdir(parents=True, exist_ok=True)
    part = beside / f"{path.parent.name}-{path.stem}.{os.getpid()}.part"
    try:
        yield part
        with suppress(FileNotFoundError, FileExistsError):  # the second by mkdir, if it goes between two looks
            path.parent.mkdir(parents=True, exist_ok=True)
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def entries(root: Path) -> list[Entry]:
    """All entries of a repository, each kind's last used first."""
    found = []
    for kind, pattern in KINDS.items():
        some = [_entry(kind, folder) for folder in (root / ".cache" / kind).glob(pattern) if folder.is_dir()]
        found += sorted(some, key=lambda entry: -entry.used)
    return found


def clear(root: Path, kinds: Collection[str] = ()) -> list[Entry]:
    """Remove the entries of these kinds (none given: of all), and say which they were.

    Raises:
        UserError: there is no such kind.
    """
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise UserError(f"--kind {unknown[0]}: no such kind; known are {', '.join(KINDS)}")
    gone = [entry for entry in entries(root) if not kinds or entry.kind in kinds]
    if gone:
        away = Path(tempfile.mkdtemp(prefix="cleared-", dir=root / ".cache"))
        for number, entry in enumerate(gone):
            with suppress(FileNotFoundError):  # its stage has just ended and needs it no longer
                entry.folder.rename(away / str(number))
    # What a killed process has left goes too.
    for left in (root / ".cache").glob("cleared-*"):
        shutil.rmtree(left, ignore_errors=True)
    for kind in kinds or KINDS:
        for left in (root / ".cache" / kind).glob("*.part"):
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > DAY:
                    left.unlink()
    return gone


def _entry(kind: str, folder: Path) -> Entry:
    words = folder.parent.name if kind == "checkpoints" else ""  # their stage
    used, size, count = 0.0, 0, 0
    for path in listed(folder, "*"):
        with suppress(OSError, ValueError):  # it may go while we look, or be half written
            status = path.stat()
            size += status.st_size
            used = max(used, status.st_mtime)
            if path.name == ABOUT:
                words = path.read_text(encoding="utf-8").strip()
            count += _count(path)
    return Entry(kind, folder, words, count, size, used)


def _count(path: Path) -> int:
    """Pictures in a file, or one checkpoint; read from the file's first bytes, without torch or numpy."""
    if path.suffix == ".pt":
        return 1
    with path.open("rb") as file:
        if path.suffix == ".safetensors":
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            return int(header["rows"]["shape"][0])
        if path.suffix == ".npy":  # version 1: magic, two bytes of version, two of length, a Python literal
            text = file.read(10 + 118).decode("latin-1")
            return int(text.partition("'shape': (")[2].partition(",")[0])
    return 0


def show(found: Collection[Entry]) -> None:
    """Print a table of entries, and their size together."""
    from rich.console import Console
    from rich.table import Table

    table = Table("kind", "what", "entries", "size", "last use")
    for entry in found:
        table.add_row(entry.kind, entry.words, f"{entry.count:,}", in_bytes(entry.size), _ago(entry.used))
    console = Console()
    if not found:
        console.print("nothing is kept in .cache")
        return
    console.print(table)
    console.print(f"{len(found)} in .cache, {in_bytes(sum(entry.size for entry in found))} together")


def in_bytes(size: int) -> str:
    """`1.5 GB`, `210 MB`, `0 kB`."""
    power = min(3, max(1, int(math.log(max(1, size), 1000))))
    value = size / 1000**power
    return f"{value:.1f} {'?kMG'[power]}B" if 0 < value < 10 else f"{value:.0f} {'?kMG'[power]}B"


def _ago(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment).strftime("%Y-%m-%d %H:%M")
