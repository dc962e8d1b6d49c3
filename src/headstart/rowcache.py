"""Rows of numbers by a picture's hash, in files that are only ever added: .cache/<kind>/<key>/*.safetensors."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from headstart import kept
from headstart.files import listed


def read(folder: Path) -> dict[str, Tensor]:
    """Everything in a folder. A file that cannot be read is removed, and its pictures are run again."""
    found: dict[str, Tensor] = {}
    for path in listed(folder, "*.safetensors"):
        try:
            found |= _load(path)
        except FileNotFoundError:  # cleared since the folder was listed
            continue
        except (SafetensorError, KeyError, ValueError):
            path.unlink(missing_ok=True)
    return found


def write(folder: Path, names: Sequence[str], rows: Tensor) -> dict[str, Tensor]:
    """Add one file, and give its rows back as `read` does.

    Two processes that run the same pictures write the same file: either one may win.
    """
    joined = " ".join(names).encode()
    path = folder / f"{hashlib.sha256(joined).hexdigest()[:32]}.safetensors"
    with kept.making(path) as part:
        save_file({"names": torch.frombuffer(bytearray(joined), dtype=torch.uint8), "rows": rows}, part)
        return _load(part)  # before it has its name: from then on it may be cleared


def _load(path: Path) -> dict[str, Tensor]:
    """A file's rows, memory-mapped: they are read from disk when they are used, not here."""
    tensors = load_file(path)
    names = bytes(tensors["names"].tolist()).decode().split()
    return dict(zip(names, tensors["rows"], strict=True))
