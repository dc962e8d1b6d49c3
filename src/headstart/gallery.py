"""The most confident mistakes as thumbnails: where a model's errors, and a data set's, are found by eye."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image

from headstart import coco
from headstart.calibration import Answers
from headstart.curves import table
from headstart.errors import missing_file
from headstart.files import write_bytes, write_text

_SIDE = 256  # pixels of a thumbnail's longest side


@dataclass(frozen=True)
class Mistake:
    """A test picture answered wrongly, with the calibrated probability of the wrong answer and a small JPEG."""

    image: coco.Image
    predicted: str
    confidence: float
    jpeg: bytes


def find(root: Path, images: Sequence[coco.Image], labels: Sequence[str], answers: Answers, most: int) -> list[Mistake]:
    """The wrong answers given with most confidence, surest first, at most `most`; file names are relative to `root`.

    Raises:
        UserError: a picture file is missing.
    """
    confidence = answers.calibrated.max(axis=1)
    wrong: list[int] = np.flatnonzero(answers.correct == 0).tolist()
    # Ties (a saturated model has many) go by file name, so that the order of the pictures changes nothing.
    surest = sorted(wrong, key=lambda i: (-confidence[i], images[i].file_name))[:most]
    return [
        Mistake(
            image=images[i],
            predicted=labels[answers.predicted[i]],
            confidence=float(confidence[i]),
            jpeg=thumbnail(root / images[i].file_name),
        )
        for i in surest
    ]


def thumbnail(path: Path) -> bytes:
    """A small JPEG of a picture file.

    Raises:
        UserError: there is no such file.
    """
    small = opened(path)
    small.thumbnail((_SIDE, _SIDE))
    return jpeg(small)


def opened(path: Path) -> PIL.Image.Image:
    """A picture file, decoded, in colour.

    Raises:
        UserError: there is no such file.
    """
    try:
        with PIL.Image.open(path) as picture:
            return picture.convert("RGB")
    except FileNotFoundError:
        raise missing_file(path, "the pictures come from fetch: dvc repro") from None


def jpeg(picture: PIL.Image.Image) -> bytes:
    """A picture as a JPEG of a size fit for a page."""
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()


def write(folder: Path, mistakes: Sequence[Mistake]) -> None:
    """Thumbnails whose names say what went wrong, and mistakes.csv with the same for programs."""
    rows = []
    for rank, mistake in enumerate(mistakes, start=1):
        said = slug(f"{mistake.image.label} called {mistake.predicted}")
        name = f"{rank:03d}-{said}-{mistake.confidence:.3f}.jpg"
        write_bytes(folder / name, mistake.jpeg)
        rows.append(
            (name, mistake.image.file_name, mistake.image.label, mistake.predicted, round(mistake.confidence, 6))
        )
    header = ("thumbnail", "file_name", "label", "predicted", "confidence")
    write_text(folder / "mistakes.csv", table(header, rows))


def slug(text: str) -> str:
    """Text as part of a file name on any system."""
    return re.sub(r"[^\w]+", "-", text).strip("-")[:80]
