"""Boxes converted from their source's units to pixels of the upright picture, and clipped to it."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from headstart.fetch.sources.records import SourceImage
from headstart.images.decode import PictureError, ValidatedPicture


class PixelBox(NamedTuple):
    """One box: COCO `(x, y, width, height)` in pixels of the upright picture."""

    label: str
    bbox: tuple[float, float, float, float]
    crowd: bool


@dataclass(frozen=True)
class PixelBoxes:
    """The boxes of one picture.

    Attributes:
        boxes: those that have an area within the picture.
        clipped: how many of them reached beyond the picture and were cut.
        dropped: for each box left out, why.
    """

    boxes: tuple[PixelBox, ...]
    clipped: int
    dropped: tuple[str, ...]


def convert_boxes(source_image: SourceImage, picture: ValidatedPicture) -> PixelBoxes:
    """Rotate boxes together with their picture, scale them to its pixels, clip them.

    Raises:
        PictureError: the annotation was made for a picture of another aspect ratio.
    """
    size = (float(picture.width), float(picture.height))
    frame = source_image.frame or size
    orientation = _orientation_of_boxes(source_image, picture)
    boxes, dropped, clipped = [], [], 0
    for box in source_image.boxes:
        corners = _orient_corners(
            [box.xmin / frame[0], box.ymin / frame[1], box.xmax / frame[0], box.ymax / frame[1]], orientation
        )
        if not all(math.isfinite(corner) for corner in corners):
            dropped.append(f"box of {box.label!r} dropped: a corner is not a finite number")
            continue
        inside = [min(max(corner, 0.0), 1.0) for corner in corners]
        x, y = inside[0] * size[0], inside[1] * size[1]
        width, height = inside[2] * size[0] - x, inside[3] * size[1] - y
        if width <= 0 or height <= 0:
            dropped.append(f"box of {box.label!r} dropped: no area within the picture")
            continue
        beyond = [abs(a - b) for a, b in zip(corners, inside, strict=True)]
        # Half a pixel beyond the edge is rounding, not a defect.
        clipped += max(beyond[0], beyond[2]) * size[0] > 0.5 or max(beyond[1], beyond[3]) * size[1] > 0.5
        boxes.append(PixelBox(box.label, (round(x, 3), round(y, 3), round(width, 3), round(height, 3)), box.crowd))
    return PixelBoxes(tuple(boxes), clipped, tuple(dropped))


def _orientation_of_boxes(source_image: SourceImage, picture: ValidatedPicture) -> int:
    """The EXIF orientation (1-8) to apply to the boxes; 1: they refer to the upright picture already.

    Where only the annotated size can decide, its aspect ratio does: tools differ in whether they apply EXIF.
    """
    if source_image.stored_frame:
        return picture.orientation
    upright = (float(picture.width), float(picture.height))
    frame = source_image.frame or upright
    if frame == (1.0, 1.0) or _same_aspect_ratio(frame, upright):
        return 1
    stored = upright[::-1] if picture.orientation >= 5 else upright
    if not _same_aspect_ratio(frame, stored):
        annotated, actual = (f"{size[0]:g} x {size[1]:g}" for size in (frame, upright))
        raise PictureError("other_size", f"its boxes are for a picture of {annotated} pixels, this one has {actual}")
    return picture.orientation


def _same_aspect_ratio(frame: tuple[float, float], size: tuple[float, float]) -> bool:
    """Whether two sizes may be of one picture at two scales: sides in one proportion, a pixel of rounding allowed."""
    scale = max(size) / max(frame)
    return all(abs(a * scale - b) <= max(1.0, scale) for a, b in zip(frame, size, strict=True))


def _orient_corners(corners: list[float], orientation: int) -> list[float]:
    """Corners `[xmin, ymin, xmax, ymax]` in fractions, transformed as an EXIF orientation transforms the pixels."""
    x1, y1, x2, y2 = corners
    if orientation in (5, 6, 7, 8):  # mirrored along the main diagonal first
        x1, y1, x2, y2 = y1, x1, y2, x2
    if orientation in (2, 3, 6, 7):
        x1, x2 = 1 - x2, 1 - x1
    if orientation in (3, 4, 7, 8):
        y1, y2 = 1 - y2, 1 - y1
    return [x1, y1, x2, y2]
