"""The gallery: small pictures whose file names describe a prediction, and a CSV file with the same for programs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.base.files import csv_text, write_bytes, write_text
from headstart.base.manifest import Image


@dataclass(frozen=True)
class GalleryItem:
    """A picture of the gallery: its file name without rank and suffix, a JPEG, and its other columns in the CSV."""

    name: str
    jpeg: bytes
    row: tuple[object, ...]


@dataclass(frozen=True)
class Gallery:
    """Pictures in their order, and the name and the columns of the CSV file; `thumbnail` is added as the first."""

    csv_name: str
    columns: tuple[str, ...]
    items: Sequence[GalleryItem]


def write_gallery(folder: Path, gallery: Gallery) -> None:
    """Write `001-<name>.jpg` and so on, and the CSV file."""
    rows = []
    for rank, item in enumerate(gallery.items, start=1):
        file_name = f"{rank:03d}-{item.name}.jpg"
        write_bytes(folder / file_name, item.jpeg)
        rows.append((file_name, *item.row))
    write_text(folder / gallery.csv_name, csv_text(("thumbnail", *gallery.columns), rows))


def slug(text: str) -> str:
    """Text as a part of a file name that every system accepts, at most 80 characters."""
    return re.sub(r"[^\w]+", "-", text).strip("-")[:80]


def by_confidence(image: Image, confidence: float) -> tuple[float, str]:
    """Sort key, the most confident first.

    Ties, of which a saturated model has many, go by file name, so that the order of the test set changes nothing.
    """
    return -confidence, image.file_name
