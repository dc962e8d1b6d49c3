"""The cache under .cache: what stages store there to be faster next time, listed and removed.

A stage may run at the same time. Whole entries are moved away before they are removed; files that the stage has
memory-mapped stay readable, and an entry that it misses it computes again.

All of .cache has one budget, `train.cache_gb`: what was used least recently makes room for what is written.
"""

import datetime
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from headstart.base import distributed
from headstart.base.errors import UserError, did_you_mean
from headstart.base.files import list_files, name_write_errors, remove_stale_files, write_text

DESCRIPTION_FILE = "about.txt"  # one line that describes the entry; its mtime is the time of the entry's last use
CACHE_KINDS = {  # kind, a folder of .cache -> glob of its entries
    "pixels": "*",
    "embeddings": "*",
    "activations": "*",
    "cross-validation": "*",
    "checkpoints": "*/*",
}


@dataclass(frozen=True)
class CacheEntry:
    """One entry: a folder named by the hash of everything that its content depends on.

    Attributes:
        kind: a key of CACHE_KINDS.
        folder: where it lies.
        description: what was hashed, for people.
        count: pictures, or checkpoints.
        size: bytes.
        last_used: seconds since 1970.
    """

    kind: str
    folder: Path
    description: str
    count: int
    size: int
    last_used: float


@dataclass
class _Budget:
    """Of this process: bytes that .cache may take in all, and the entries that the process itself uses.

    Entries without links in their paths: the projects of cross-validation's folds share one .cache by a link.
    """

    max_bytes: float = math.inf
    in_use: set[Path] = field(default_factory=set)


_budget = _Budget()


@contextmanager
def cache_budget(root: Path, max_gb: float) -> Iterator[None]:
    """For the block, keep the .cache of the repository at `root` below `max_gb` (10^9 bytes), also at its end.

    Entries that this process uses are not removed, so that they may take more together; a stage that asks `fits_cache`
    before it makes one stays below.
    """
    _budget.max_bytes, _budget.in_use = max_gb * 1e9, set()
    try:
        yield
        _evict(root, 0)
    finally:
        _budget.max_bytes = math.inf


def make_room(folder: Path, size: int) -> None:
    """Before `size` bytes are written to an entry: remove others, the least recently used first, as the budget asks."""
    if not math.isinf(_budget.max_bytes):
        _budget.in_use.add(folder.resolve())
        _evict(_cache_of(folder).parent, size)


def fits_cache(folder: Path, size: int, max_gb: float) -> bool:
    """Whether an entry of `size` bytes, beside the others that this process uses, takes at most `max_gb`."""
    folder = folder.resolve()
    others = (one for one in _budget.in_use if _cache_of(one) == _cache_of(folder) and one != folder)
    return size + sum(_measure(one)[0] for one in others) <= max_gb * 1e9


def _cache_of(entry: Path) -> Path:
    return next(folder for folder in entry.parents if folder.name == ".cache")


def _evict(root: Path, size: int) -> None:
    if math.isinf(_budget.max_bytes) or distributed.get_rank():
        return
    excess = _measure(root / ".cache")[0] + size - _budget.max_bytes
    folders = [folder for kind, pattern in CACHE_KINDS.items() for folder in (root / ".cache" / kind).glob(pattern)]
    measured = {folder: _measure(folder) for folder in folders if folder.resolve() not in _budget.in_use}
    removed: list[Path] = []
    for folder, (of_entry, _) in sorted(measured.items(), key=lambda item: item[1][1]):
        if excess <= 0:
            break
        removed.append(folder)
        excess -= of_entry
    if removed:
        freed = format_size(sum(measured[folder][0] for folder in removed))
        entries = "entry" if len(removed) == 1 else "entries"
        print(
            f"cache: {len(removed)} {entries} of .cache removed ({freed}), used least recently, to stay within "
            f"train.cache_gb: {_budget.max_bytes / 1e9:g}",
            file=sys.stderr,
        )
        _remove_folders(root, removed)


def _measure(folder: Path) -> tuple[int, float]:
    """Bytes of all files in a folder, and the newest time of one; other processes may remove them meanwhile."""
    size, last_used = 0, 0.0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                status = Path(parent, name).stat()
                size += status.st_size
                last_used = max(last_used, status.st_mtime)
    return size, last_used


def mark_used(folder: Path, description: str) -> None:
    """Record that an entry is used now, and its description. A disk that cannot take it is no reason to stop."""
    _budget.in_use.add(folder.resolve())
    with suppress(OSError):
        write_text(folder / DESCRIPTION_FILE, f"{description}\n")


@contextmanager
def write_entry_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a file of an entry; it lies beside the entry, where no clearing removes it.

    At the end it is renamed to `path`. If the entry is being cleared, the file goes too; what is memory-mapped stays
    readable. After an error nothing is left.
    """
    beside = path.parent.parent
    beside.mkdir(parents=True, exist_ok=True)
    part = beside / f"{path.parent.name}-{path.stem}.{os.getpid()}.part"
    try:
        with name_write_errors(path, part):
            yield part
            # mkdir raises FileExistsError if the folder is removed between its own two checks.
            with suppress(FileNotFoundError, FileExistsError):
                path.parent.mkdir(parents=True, exist_ok=True)
                part.replace(path)
    finally:
        with suppress(OSError):  # the error that is being raised matters more
            part.unlink(missing_ok=True)


def list_entries(root: Path) -> list[CacheEntry]:
    """All entries of the repository at `root`: by kind, the most recently used first."""
    entries = []
    for kind, pattern in CACHE_KINDS.items():
        of_kind = [_read_entry(kind, folder) for folder in (root / ".cache" / kind).glob(pattern) if folder.is_dir()]
        entries += sorted(of_kind, key=lambda entry: -entry.last_used)
    return entries


def remove_entries(root: Path, kinds: Collection[str] = ()) -> list[CacheEntry]:
    """Remove the entries of some kinds (default: of all) and return them.

    Raises:
        UserError: there is no such kind.
    """
    if unknown := sorted(set(kinds) - set(CACHE_KINDS)):
        fix = did_you_mean(unknown[0], CACHE_KINDS, f"known are {', '.join(CACHE_KINDS)}")
        raise UserError(f"--kind {unknown[0]}: no such kind; {fix}")
    removed = [entry for entry in list_entries(root) if not kinds or entry.kind in kinds]
    _remove_folders(root, [entry.folder for entry in removed])
    for kind in kinds or CACHE_KINDS:
        remove_stale_files(root / ".cache" / kind)
    return removed


def _remove_folders(root: Path, folders: Collection[Path]) -> None:
    if folders:
        away = Path(tempfile.mkdtemp(prefix="cleared-", dir=root / ".cache"))
        for number, folder in enumerate(folders):
            with suppress(FileNotFoundError):  # its stage has just ended and removed it
                folder.rename(away / str(number))
    # With it goes what killed processes have left.
    for folder in (root / ".cache").glob("cleared-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _read_entry(kind: str, folder: Path) -> CacheEntry:
    description = folder.parent.name if kind == "checkpoints" else ""  # checkpoints lie in a folder for each stage
    (size, last_used), count = _measure(folder), 0
    for path in list_files(folder, "*"):
        with suppress(OSError, ValueError):  # it may be removed meanwhile, or be half written
            if path.name == DESCRIPTION_FILE:
                description = path.read_text(encoding="utf-8").strip()
            count += _count_rows(path)
    return CacheEntry(kind, folder, description, count, size, last_used)


def _count_rows(path: Path) -> int:
    """Rows (pictures) in a file, or 1 for a checkpoint; read from the file's first bytes, without torch or numpy."""
    if path.suffix == ".pt":
        return 1
    with path.open("rb") as file:
        if path.suffix == ".safetensors":
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            return int(header["rows"]["shape"][0])
        if path.suffix == ".npy":  # format version 1: magic, two bytes of version, two of length, a Python literal
            text = file.read(10 + 118).decode("latin-1")
            return int(text.partition("'shape': (")[2].partition(",")[0])
    return 0


def print_entries(entries: Collection[CacheEntry]) -> None:
    """Print a table of entries and their total size."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not entries:
        console.print("no entries in .cache")
        return
    table = Table("kind", "description", "count", "size", "last use")
    for entry in entries:
        last_use = datetime.datetime.fromtimestamp(entry.last_used).strftime("%Y-%m-%d %H:%M")
        table.add_row(entry.kind, entry.description, f"{entry.count:,}", format_size(entry.size), last_use)
    console.print(table)
    total = format_size(sum(entry.size for entry in entries))
    console.print(f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'} in .cache, {total}")


def format_size(size: int) -> str:
    """Bytes as `1.5 GB`, `210 MB`, `0 kB`."""
    power = min(3, max(1, int(math.log(max(1, size), 1000))))
    value = size / 1000**power
    return f"{value:.1f} {'?kMG'[power]}B" if 0 < value < 10 else f"{value:.0f} {'?kMG'[power]}B"
