"""Boxes converted from their source's units to pixels of the upright picture, and clipped to it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from headstart.fetch.sources.records import SourceBox, SourceImage
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
        boxes: all of them, as far as they lie within the picture.
        clipped: how many of them reached beyond the picture and were cut.
    """

    boxes: tuple[PixelBox, ...]
    clipped: int


def convert_boxes(source_image: SourceImage, picture: ValidatedPicture) -> PixelBoxes:
    """Rotate boxes together with their picture, scale them to its pixels, clip them.

    Raises:
        PictureError: the annotation was made for a picture of another aspect ratio, or its boxes do not fit the size
            that it gives; or a box cannot be used, for without it the picture would show an object that is taught as
            background.
    """
    size = (float(picture.width), float(picture.height))
    frame = source_image.frame or size
    _check_scale(source_image.boxes, frame, size)
    orientation = _orientation_of_boxes(source_image, picture)
    converted = [_convert_box(box, frame, size, orientation) for box in source_image.boxes]
    return PixelBoxes(tuple(box for box, _ in converted), sum(is_clipped for _, is_clipped in converted))


def _check_scale(boxes: Sequence[SourceBox], frame: tuple[float, float], size: tuple[float, float]) -> None:
    """Raise PictureError where a box reaches beyond the annotated size, and the picture is larger than that.

    Then the size is of a smaller copy and the boxes are of the picture: scaled by it, all of them would be wrong.
    """
    if frame == (1.0, 1.0) or max(frame) + 1 >= max(size):
        return
    for box in boxes:
        if box.xmax > 1.02 * frame[0] + 1 or box.ymax > 1.02 * frame[1] + 1:
            name = f"{box.where}: box of {box.label!r}" if box.where else f"box of {box.label!r}"
            raise PictureError(
                "other_size",
                f"{name}: it ends at {box.xmax:g}, {box.ymax:g}, beyond its annotation's picture of {frame[0]:g} x "
                f"{frame[1]:g} pixels; this one has {size[0]:g} x {size[1]:g}: correct the size there",
            )


def _convert_box(
    box: SourceBox, frame: tuple[float, float], size: tuple[float, float], orientation: int
) -> tuple[PixelBox, bool]:
    """One box in pixels of the picture of that size, and whether it had to be clipped."""
    corners = _orient_corners(
        [box.xmin / frame[0], box.ymin / frame[1], box.xmax / frame[0], box.ymax / frame[1]], orientation
    )
    name = f"{box.where}: box of {box.label!r}" if box.where else f"box of {box.label!r}"
    written = ", ".join(f"{corner:g}" for corner in (box.xmin, box.ymin, box.xmax, box.ymax))
    if not all(math.isfinite(corner) for corner in corners):
        raise PictureError("box", f"{name}: a corner of {written} is not a finite number")
    inside = [min(max(corner, 0.0), 1.0) for corner in corners]
    x, y = inside[0] * size[0], inside[1] * size[1]
    width, height = inside[2] * size[0] - x, inside[3] * size[1] - y
    bbox = (round(x, 3), round(y, 3), round(width, 3), round(height, 3))
    if bbox[2] <= 0 or bbox[3] <= 0:
        raise PictureError("box", f"{name}: {written} has no area within the picture of {size[0]:g} x {size[1]:g}")
    beyond = [abs(a - b) for a, b in zip(corners, inside, strict=True)]
    # Half a pixel beyond the edge is rounding, not a defect.
    is_clipped = max(beyond[0], beyond[2]) * size[0] > 0.5 or max(beyond[1], beyond[3]) * size[1] > 0.5
    return PixelBox(box.label, bbox, box.crowd), is_clipped


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
