"""Picture file -> pixels of the network's size: decoded once, kept as bytes. No torch in here."""

import errno
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from pydantic import BaseModel, ConfigDict

from headstart import kept, pool, ranks
from headstart.coco import Image

Pixels = npt.NDArray[np.uint8]
Corners = npt.NDArray[np.float32]  # (b, 4): xmin, ymin, xmax, ymax

FILTERS = {
    "nearest": Pillow.Resampling.NEAREST,
    "bilinear": Pillow.Resampling.BILINEAR,
    "bicubic": Pillow.Resampling.BICUBIC,
    "lanczos": Pillow.Resampling.LANCZOS,
}


class Input(BaseModel):
    """What a picture must become before the network sees it.

    `mean` and `std` are per channel on a scale of 0..1; `crop` is the share of the picture that timm's own
    evaluation keeps (used by `model.resize: crop`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    resize: str
    interpolation: str
    crop: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def words(self) -> str:
        """`224 px squash`."""
        return f"{self.size} px {self.resize}"


def fit(picture: Pillow.Image, wanted: Input) -> Pixels:
    """One upright picture in the network's size, (size, size, 3).

    `squash` shows the network the whole picture and gives up its proportions; `crop` is timm's evaluation: the
    shorter side to size / crop, then the middle.
    """
    size, how = wanted.size, FILTERS.get(wanted.interpolation, Pillow.Resampling.BICUBIC)
    # JPEG can be decoded at 1/2, 1/4 or 1/8 scale; twice the size wanted is left for the resampling to work on.
    picture.draft("RGB", (2 * size, 2 * size))
    if picture.mode != "L":  # grey is resampled as one channel: the same numbers for a third of the work
        picture = picture.convert("RGB")
    if wanted.resize == "squash":
        return _rgb(picture.resize((size, size), how))
    whole, (left, top) = _cropped(*picture.size, wanted)
    return _rgb(picture.resize(whole, how).crop((left, top, left + size, top + size)))


def _cropped(width: int, height: int, wanted: Input) -> tuple[tuple[int, int], tuple[int, int]]:
    """The size that `crop` gives a picture, and where in that the network's part begins."""
    edge = int(wanted.size / wanted.crop)  # torchvision's Resize and CenterCrop, rounding included
    longer = int(edge * max(width, height) / min(width, height))
    whole = (edge, longer) if width <= height else (longer, edge)
    left, top = (round((side - wanted.size) / 2) for side in whole)
    return whole, (left, top)


def to_input(boxes: Corners, width: int, height: int, wanted: Input) -> Corners:
    """Corners (b, 4) in pixels of a picture of this size -> in pixels of the network's input, cut at its edges."""
    scale, offset = _frame(width, height, wanted)
    found: Corners = (boxes * scale - offset).clip(0, wanted.size).astype(np.float32)
    return found


def from_input(boxes: Corners, width: int, height: int, wanted: Input) -> Corners:
    """The way back: corners (b, 4) in pixels of the network's input -> of the picture, cut at its edges."""
    scale, offset = _frame(width, height, wanted)
    found: Corners = ((boxes + offset) / scale).clip(0, [width, height, width, height]).astype(np.float32)
    return found


def _frame(width: int, height: int, wanted: Input) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Scale and offset of x, y, x, y."""
    whole, start = ((wanted.size, wanted.size), (0, 0))
    if wanted.resize != "squash":
        whole, start = _cropped(width, height, wanted)
    scale = np.array([whole[0] / width, whole[1] / height] * 2)
    return scale, np.array([*start, *start], np.float64)


def _rgb(picture: Pillow.Image) -> Pixels:
    return np.asarray(picture.convert("RGB"))


def decode(path: Path, wanted: Input) -> Pixels:
    """`fit` for a file that went through the door."""
    with Pillow.open(path) as picture:
        return fit(picture, wanted)


class Files:
    """Pictures that are decoded whenever rows of them are asked for: too many to keep decoded."""

    def __init__(self, images: Sequence[Image], root: Path, wanted: Input) -> None:
        self._paths, self._wanted = [root / image.file_name for image in images], wanted
        self._threads = ThreadPoolExecutor(pool.cores(), "decode")

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> Pixels:
        paths = self._paths[rows] if isinstance(rows, slice) else [self._paths[row] for row in rows]
        return np.stack(list(self._threads.map(lambda path: decode(path, self._wanted), paths)))


def within(most_gb: float, images: Sequence[Image], root: Path, wanted: Input) -> Pixels | Files:
    """`load`, unless the pictures take more than `most_gb` (10^9 bytes): then they are decoded each time.

    Both give the same pixels.
    """
    if len(images) * wanted.size**2 * 3 > most_gb * 1e9:
        return Files(images, root, wanted)
    with ranks.first():
        return load(images, root, wanted, "decode")


def load(images: Sequence[Image], root: Path, wanted: Input, what: str) -> Pixels:
    """All pictures, (n, size, size, 3), as a memory-mapped file under .cache/pixels, made once for a list of pictures.

    The folder's name is the hash of what is in it, so a changed picture or size is another one.
    """
    key = hashlib.sha256(wanted.model_dump_json(include={"size", "resize", "interpolation", "crop"}).encode())
    for image in images:
        key.update(image.sha256.encode())
    path = root / ".cache/pixels" / key.hexdigest()[:32] / "pixels.npy"
    kept.use(path.parent, f"{wanted.words()} {wanted.interpolation}")
    try:
        found: Pixels = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        return _store(images, root, wanted, path, what)
    return found


def _take_room(file: Path) -> None:
    """Have the disk set aside what a sparse file lacks: a full one is an error here, and later a dead process."""
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as opened:
            try:
                os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
            except OSError as error:
                if error.errno == errno.ENOSPC:  # anything else: a file system that cannot do that
                    raise


def _store(images: Sequence[Image], root: Path, wanted: Input, path: Path, what: str) -> Pixels:
    shape = (len(images), wanted.size, wanted.size, 3)
    with kept.making(path) as part:
        pixels = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
        _take_room(part)

        def put(number: int) -> None:
            pixels[number] = decode(root / images[number].file_name, wanted)

        pool.each(put, range(len(images)), what)
        pixels.flush()
    pixels.flags.writeable = False
    return pixels
