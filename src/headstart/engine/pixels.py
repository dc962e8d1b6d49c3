"""Picture files -> pixels in the network's input size: decoded once, cached as a memory-mapped array. No torch."""

import errno
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from headstart.base import distributed
from headstart.base.cache_dir import mark_used, write_entry_file
from headstart.base.manifest import Image
from headstart.base.parallel import parallel_map, process_cpu_count
from headstart.engine.input_spec import InputSpec, Pixels, resize_to_input


def read_pixels(path: Path, input_spec: InputSpec) -> Pixels:
    """Pixels (size, size, 3) of a file that the fetch stage has validated and stored upright."""
    with Pillow.open(path) as picture:
        return resize_to_input(picture, input_spec)


class LazyPixels:
    """An array (n, size, size, 3) whose rows are decoded at each access: for pictures too many to cache decoded."""

    def __init__(self, images: Sequence[Image], root: Path, input_spec: InputSpec) -> None:
        self._paths, self._input_spec = [root / image.file_name for image in images], input_spec
        self._threads = ThreadPoolExecutor(process_cpu_count(), "decode")

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> Pixels:
        paths = self._paths[rows] if isinstance(rows, slice) else [self._paths[row] for row in rows]
        return np.stack(list(self._threads.map(lambda path: read_pixels(path, self._input_spec), paths)))


def load_pixels_or_lazy(
    max_gb: float, images: Sequence[Image], root: Path, input_spec: InputSpec
) -> Pixels | LazyPixels:
    """`load_pixels`, or `LazyPixels` where they take more than `max_gb` (10^9 bytes). Both give the same pixels."""
    if len(images) * input_spec.size**2 * 3 > max_gb * 1e9:
        return LazyPixels(images, root, input_spec)
    with distributed.main_process_first():
        return load_pixels(images, root, input_spec, "decode")


def load_pixels(images: Sequence[Image], root: Path, input_spec: InputSpec, label: str) -> Pixels:
    """All pictures, (n, size, size, 3), as a memory-mapped file under .cache/pixels, made once for a list of pictures.

    The folder's name is the hash of the pictures' sha256 and of the resizing: other pictures or another size are
    another folder.

    Args:
        images: pictures, in the order of the rows.
        root: of the repository.
        input_spec: size and resizing; mean and std do not matter here.
        label: of the progress bar.
    """
    key = hashlib.sha256(input_spec.model_dump_json(include={"size", "resize", "interpolation", "crop"}).encode())
    for image in images:
        key.update(image.sha256.encode())
    path = root / ".cache/pixels" / key.hexdigest()[:32] / "pixels.npy"
    mark_used(path.parent, f"{input_spec.description()} {input_spec.interpolation}")
    try:
        cached: Pixels = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        return _decode_to_cache(images, root, input_spec, path, label)
    return cached


def _decode_to_cache(images: Sequence[Image], root: Path, input_spec: InputSpec, path: Path, label: str) -> Pixels:
    shape = (len(images), input_spec.size, input_spec.size, 3)
    with write_entry_file(path) as part:
        pixels = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
        _preallocate(part)

        def decode(row: int) -> None:
            pixels[row] = read_pixels(root / images[row].file_name, input_spec)

        parallel_map(decode, range(len(images)), label)
        pixels.flush()
    pixels.flags.writeable = False
    return pixels


def _preallocate(file: Path) -> None:
    """Allocate a sparse file's blocks: a full disk is an error here, and a SIGBUS when a page is written later."""
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as opened:
            try:
                os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
            except OSError as error:
                if error.errno == errno.ENOSPC:  # any other: a file system that cannot preallocate
                    raise
