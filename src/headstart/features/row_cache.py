"""Cached rows of numbers by a picture's sha256, in files that are never changed: .cache/<kind>/<key>/*.safetensors.

Each row has a checksum, which is checked where it is read: a row that a disk has damaged is computed anew.
"""

import hashlib
import sys
import zlib
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from headstart.base.cache_dir import make_room, write_entry_file
from headstart.base.files import list_files
from headstart.base.parallel import process_cpu_count

# What half a file raises, depending on the half; OSError: what is no file, or must not be read.
_UNREADABLE = (SafetensorError, KeyError, ValueError, RuntimeError, OSError)


def read_cached_rows(folder: Path, wanted: Collection[str]) -> dict[str, Tensor]:
    """Rows of these pictures in a folder, by sha256; those that are missing or damaged are not in it.

    A damaged file is replaced by one with its intact rows, with one line.
    """
    rows: dict[str, Tensor] = {}
    for path in list_files(folder, "*.safetensors"):
        try:
            found, checksums = _load_rows(path)
        except FileNotFoundError:  # cleared since the folder was listed
            continue
        except _UNREADABLE:
            _replace_damaged(path, "the file is damaged", {})
            continue
        needed = {name: row for name, row in found.items() if name in wanted}
        if damaged := _damaged_rows(needed, checksums):
            intact = {name: row for name, row in found.items() if name not in _damaged_rows(found, checksums)}
            _replace_damaged(path, f"{len(found) - len(intact):,} of its {len(found):,} rows are damaged", intact)
        rows |= {name: row for name, row in needed.items() if name not in damaged}
    return rows


def write_cached_rows(folder: Path, names: Sequence[str], rows: Tensor) -> dict[str, Tensor]:
    """Add one file, and return its rows as `read_cached_rows` does.

    Two processes that run the same pictures write the same file: either one may win.
    """
    joined = " ".join(names).encode()
    path = folder / f"{hashlib.sha256(joined).hexdigest()[:32]}.safetensors"
    rows = rows.contiguous()
    checksums = torch.tensor([_checksum(name, row) for name, row in zip(names, rows, strict=True)], dtype=torch.int64)
    content = {"names": torch.frombuffer(bytearray(joined), dtype=torch.uint8), "rows": rows, "checksums": checksums}
    make_room(folder, rows.nbytes)
    with write_entry_file(path) as part:
        save_file(content, part)
        return _load_rows(part)[0]  # before it is renamed: from then on another process may clear it


def _load_rows(path: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    """A file's rows, memory-mapped: they are read from disk when they are used, not here; and their checksums."""
    tensors = load_file(path)
    names = bytes(tensors["names"].tolist()).decode().split()
    rows = dict(zip(names, tensors["rows"], strict=True))
    return rows, dict(zip(names, tensors["checksums"].tolist(), strict=True))


def _damaged_rows(rows: dict[str, Tensor], checksums: dict[str, int]) -> set[str]:
    with ThreadPoolExecutor(process_cpu_count()) as threads:  # zlib releases the GIL
        found = threads.map(_checksum, rows.keys(), rows.values())
    return {name for name, checksum in zip(rows, found, strict=True) if checksum != checksums[name]}


def _checksum(name: str, row: Tensor) -> int:
    """CRC-32 of a row and of what it is: another picture's row, or other numbers in the same bytes, disagree too."""
    of_name = zlib.crc32(f"{name} {row.dtype} {tuple(row.shape)}".encode())
    return zlib.crc32(row.view(torch.uint8).numpy().data, of_name)


def _replace_damaged(path: Path, damage: str, intact: dict[str, Tensor]) -> None:
    kind, key, name = path.parts[-3:]
    print(f"warning: .cache/{kind}/{key}/{name}: {damage}; computed anew", file=sys.stderr)
    if intact:
        write_cached_rows(path.parent, list(intact), torch.stack(list(intact.values())))
    path.unlink(missing_ok=True)
