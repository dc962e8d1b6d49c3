"""Boxes from any frame to pixels of the upright picture, clipped to it."""

import math
from dataclasses import dataclass

from headstart.door import Picture, PictureError
from headstart.sources.wanted import Wanted


@dataclass(frozen=True)
class Placed:
    """Boxes as COCO has them, in pixels of the upright picture.

    Attributes:
        boxes: label, `(x, y, width, height)`, crowd.
        clipped: boxes that reached beyond the picture and were cut.
        dropped: for each box left out, why.
    """

    boxes: tuple[tuple[str, tuple[float, float, float, float], bool], ...]
    clipped: int
    dropped: tuple[str, ...]


def place(wanted: Wanted, picture: Picture) -> Placed:
    """Turn boxes together with their picture, scale them to its pixels, cut what is outside.

    Raises:
        PictureError: the annotation was made for a picture of another shape.
    """
    swapped = picture.orientation >= 5
    upright = (float(picture.width), float(picture.height))
    stored = upright[::-1] if swapped else upright
    orientation = 1
    frame = wanted.frame or upright
    if wanted.stored_frame:
        orientation = picture.orientation
    elif frame != (1.0, 1.0) and not _same_shape(frame, upright):
        if not _same_shape(frame, stored):
            shown, real = (f"{size[0]:g} x {size[1]:g}" for size in (frame, upright))
            raise PictureError("other_size", f"its boxes are for a picture of {shown} pixels, this one has {real}")
        orientation = picture.orientation
    done, dropped, clipped = [], [], 0
    for box in wanted.boxes:
        corners = _turn(
            [box.xmin / frame[0], box.ymin / frame[1], box.xmax / frame[0], box.ymax / frame[1]], orientation
        )
        if not all(math.isfinite(corner) for corner in corners):
            dropped.append(f"box of {box.label!r} dropped: a corner is no number")
            continue
        inside = [min(max(corner, 0.0), 1.0) for corner in corners]
        x, y = inside[0] * upright[0], inside[1] * upright[1]
        width, height = inside[2] * upright[0] - x, inside[3] * upright[1] - y
        if width <= 0 or height <= 0:
            dropped.append(f"box of {box.label!r} dropped: no area within the picture")
            continue
        beyond = [abs(a - b) for a, b in zip(corners, inside, strict=True)]
        # Half a pixel beyond the edge is rounding, not a defect.
        clipped += max(beyond[0], beyond[2]) * upright[0] > 0.5 or max(beyond[1], beyond[3]) * upright[1] > 0.5
        done.append((box.label, (round(x, 3), round(y, 3), round(width, 3), round(height, 3)), box.crowd))
    return Placed(tuple(done), clipped, tuple(dropped))


def _same_shape(frame: tuple[float, float], size: tuple[float, float]) -> bool:
    """The same picture, perhaps at another scale: sides in one proportion, a pixel of rounding allowed."""
    scale = max(size) / max(frame)
    return all(abs(a * scale - b) <= max(1.0, scale) for a, b in zip(frame, size, strict=True))


def _turn(corners: list[float], orientation: int) -> list[float]:
    """Corners `[xmin, ymin, xmax, ymax]` in fractions, moved as EXIF's orientation moves the pixels."""
    x1, y1, x2, y2 = corners
    if orientation in (5, 6, 7, 8):  # mirrored along the main diagonal first
        x1, y1, x2, y2 = y1, x1, y2, x2
    if orientation in (2, 3, 6, 7):
        x1, x2 = 1 - x2, 1 - x1
    if orientation in (3, 4, 7, 8):
        y1, y2 = 1 - y2, 1 - y1
    return [x1, y1, x2, y2]
