"""Cached rows of numbers by a picture's sha256, in files that are never changed: .cache/<kind>/<key>/*.safetensors."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from headstart.base.cache_dir import write_entry_file
from headstart.base.files import list_files


def read_cached_rows(folder: Path) -> dict[str, Tensor]:
    """All rows in a folder, by sha256. A file that cannot be read is removed, and its pictures are run again."""
    rows: dict[str, Tensor] = {}
    for path in list_files(folder, "*.safetensors"):
        try:
            rows |= _load_rows(path)
        except FileNotFoundError:  # cleared since the folder was listed
            continue
        except (SafetensorError, KeyError, ValueError):
            path.unlink(missing_ok=True)
    return rows


def write_cached_rows(folder: Path, names: Sequence[str], rows: Tensor) -> dict[str, Tensor]:
    """Add one file, and return its rows as `read_cached_rows` does.

    Two processes that run the same pictures write the same file: either one may win.
    """
    joined = " ".join(names).encode()
    path = folder / f"{hashlib.sha256(joined).hexdigest()[:32]}.safetensors"
    with write_entry_file(path) as part:
        save_file({"names": torch.frombuffer(bytearray(joined), dtype=torch.uint8), "rows": rows}, part)
        return _load_rows(part)  # before it is renamed: from then on another process may clear it


def _load_rows(path: Path) -> dict[str, Tensor]:
    """A file's rows, memory-mapped: they are read from disk when they are used, not here."""
    tensors = load_file(path)
    names = bytes(tensors["names"].tolist()).decode().split()
    return dict(zip(names, tensors["rows"], strict=True))
