"""Picture files -> pixels in the network's input size: decoded once, cached as a memory-mapped array. No torch."""

import hashlib
import math
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from headstart.base import distributed
from headstart.base.cache_dir import fits_cache, mark_used
from headstart.base.code_digest import code_digest
from headstart.base.manifest import Image
from headstart.base.parallel import process_cpu_count
from headstart.base.stored_picture import open_stored_picture
from headstart.engine.input_spec import InputSpec, Pixels, resize_to_input
from headstart.engine.pixel_file import CheckedRows, open_checked_rows, write_checked_rows
from headstart.engine.tiles import Tile, cut_tile

# What computes the pixels of a stored picture: part of the cache's key.
PIXEL_MODULES = ("headstart.engine.input_spec", "headstart.engine.pixels", "headstart.engine.tiles")


def read_pixels(path: Path, input_spec: InputSpec, tile: Tile | None = None) -> Pixels:
    """Pixels (height, width, 3) of a file that the fetch stage has validated and stored upright, or of a tile of it."""
    if tile and input_spec.tiles:
        whole = _decode_whole(path, path.stat().st_mtime_ns if path.exists() else 0)
        return resize_to_input(cut_tile(whole, tile, input_spec.tiles), input_spec)
    with open_stored_picture(path) as picture:
        return resize_to_input(picture, input_spec)


@lru_cache(maxsize=4)
def _decode_whole(path: Path, modified: int) -> Pillow.Image:
    """A decoded picture; the last few are kept, for their tiles come one after another."""
    with open_stored_picture(path) as picture:
        return picture.copy() if picture.mode == "L" else picture.convert("RGB")


class LazyPixels:
    """An array (n, height, width, 3) whose rows are decoded at each access: for pictures too many to cache decoded."""

    def __init__(self, images: Sequence[Image], root: Path, input_spec: InputSpec) -> None:
        self._files = [(root / image.file_name, image.tile) for image in images]
        self._input_spec = input_spec
        self._threads = ThreadPoolExecutor(process_cpu_count(), "decode")

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> Pixels:
        files = self._files[rows] if isinstance(rows, slice) else [self._files[row] for row in rows]
        return np.stack(list(self._threads.map(lambda file: read_pixels(file[0], self._input_spec, file[1]), files)))


def load_pixels_or_lazy(
    max_gb: float, images: Sequence[Image], root: Path, input_spec: InputSpec
) -> Pixels | LazyPixels:
    """`load_pixels`, or `LazyPixels` where the cache would take more than `max_gb` (10^9 bytes). Both give the same."""
    path = _cache_file(images, root, input_spec)
    if not distributed.broadcast_object(fits_cache(path.parent, len(images) * math.prod(input_spec.shape) * 3, max_gb)):
        return LazyPixels(images, root, input_spec)
    with distributed.main_process_first():
        return load_pixels(images, root, input_spec, "decode")


def load_pixels(images: Sequence[Image], root: Path, input_spec: InputSpec, label: str) -> Pixels:
    """All pictures, (n, height, width, 3), a memory-mapped file under .cache/pixels, made once for a list of pictures.

    The folder's name is the hash of the pictures' sha256, of the resizing and of the code that does it: other pictures
    or another size are another folder. Each row has a checksum in the file; rows that disagree are decoded anew.

    Args:
        images: pictures, in the order of the rows.
        root: of the repository.
        input_spec: size and resizing; mean and std do not matter here.
        label: of the progress bar.
    """
    path = _cache_file(images, root, input_spec)
    mark_used(path.parent, f"{input_spec.description()} {input_spec.interpolation}")
    shape = (len(images), *input_spec.shape, 3)
    try:
        cached = open_checked_rows(path, shape)
    except FileNotFoundError:
        cached = CheckedRows(None, range(len(images)))
    else:
        if cached.damaged:
            print(f"warning: {path.relative_to(root)}: {cached.description()}; decoded anew", file=sys.stderr)
    if cached.rows is not None and not cached.damaged:
        return cached.rows
    missing = set(cached.damaged)

    def decode(row: int) -> Pixels:
        if cached.rows is not None and row not in missing:
            intact: Pixels = cached.rows[row]
            return intact
        return read_pixels(root / images[row].file_name, input_spec, images[row].tile)

    return write_checked_rows(path, shape, decode, label)


def _cache_file(images: Sequence[Image], root: Path, input_spec: InputSpec) -> Path:
    key = hashlib.sha256(input_spec.model_dump_json(include={"size", "resize", "interpolation", "crop"}).encode())
    key.update(f"{version('pillow')} {code_digest(PIXEL_MODULES)}".encode())
    for image in images:
        key.update(image.sha256.encode())
    return root / ".cache/pixels" / key.hexdigest()[:32] / "pixels.npy"
