"""Boxes at the frame of their picture: one rule for stored copies, training batches and the network's input.

What reaches beyond the frame is cut off, and the rest stays the object's box, however small a share of it: without the
box the network would be taught that the part it sees is background. Only a rest thinner than a pixel goes, of which
nothing can be seen (the rule of torchvision's SanitizeBoundingBoxes). A box that was not cut always stays.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from headstart.base.arrays import Bools

MIN_REST = 1.0  # pixels of either side that must be left of a box that was cut
_ROUNDING = 0.01  # pixels; so far beyond the frame a box is not cut

FloatT = TypeVar("FloatT", np.float32, np.float64)


def clip_boxes(boxes: npt.NDArray[FloatT], width: float, height: float) -> tuple[npt.NDArray[FloatT], Bools]:
    """Boxes cut at the frame of a picture, and which of them stay.

    Args:
        boxes: (b, 4): xmin, ymin, xmax, ymax, in pixels.
        width: of the picture, in pixels.
        height: of the picture, in pixels.

    Returns:
        (b, 4) and a mask (b,).
    """
    clipped = boxes.clip(0, [width, height, width, height]).astype(boxes.dtype)
    return clipped, boxes_that_stay(boxes, clipped)


def boxes_that_stay(boxes: npt.NDArray[FloatT], clipped: npt.NDArray[FloatT]) -> Bools:
    """Which boxes (b, 4) stay, given what is left of them within the frame, (b, 4); a mask (b,)."""
    sides = clipped[:, 2:] - clipped[:, :2]
    is_whole: Bools = np.all(np.abs(clipped - boxes) <= _ROUNDING, axis=1)
    least = np.where(is_whole, 0, MIN_REST)[:, None]
    stay: Bools = np.all((sides > 0) & (sides >= least), axis=1)
    return stay
