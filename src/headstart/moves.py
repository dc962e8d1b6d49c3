"""Boxes move as their pixels do: by the draw that changes a picture."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.changes import Draw, theta

VISIBLE = 0.3  # share of a box that must stay inside the picture
Corners = npt.NDArray[np.float64]  # (b, 4): xmin, ymin, xmax, ymax


def move(boxes: Corners, drawn: Draw, width: float, height: float) -> tuple[Corners, npt.NDArray[np.bool_]]:
    """Where boxes of a picture lie after a draw, cut at its edges, and which of them are still to be seen.

    A box that turns becomes the upright one around its four corners. One of which less than 30 % stays inside, or
    less than a pixel, is none any more.

    Args:
        boxes: corners (b, 4), in pixels.
        drawn: the change.
        width: of the picture.
        height: of the picture.
    """
    size = np.array([width, height])
    x1, y1, x2, y2 = boxes.T
    corners = np.stack([np.stack(pair, -1) for pair in ((x1, y1), (x2, y1), (x1, y2), (x2, y2))], 1)  # (b, 4, 2)
    look = np.array(theta(drawn, width / height))  # where an output pixel looks in the input, both in -1..1
    moved = ((corners / size * 2 - 1) - look[:, 2]) @ np.linalg.inv(look[:, :2]).T
    moved = (moved + 1) / 2 * size
    whole = np.concatenate([moved.min(1), moved.max(1)], 1)
    inside = whole.clip(0, [*size, *size])
    sides = inside[:, 2:] - inside[:, :2]
    share = sides.prod(1) / (whole[:, 2:] - whole[:, :2]).prod(1).clip(1e-9)
    return inside, (share >= VISIBLE) & (sides >= 1).all(1)


def move_targets(target: Tensor, drawn: Draw, size: int) -> Tensor:
    """The same for a row of targets (m, 5), label and corners in pixels of a square input."""
    boxes, seen = move(target[:, 1:].double().numpy(), drawn, size, size)
    return torch.cat([target[:, :1], torch.from_numpy(boxes).float()], 1)[torch.from_numpy(seen)]


def mosaic(pictures: Sequence[Tensor], targets: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Four pictures (3, s, s) at half their size as one, and their boxes. Source: Bochkovskiy et al. 2020 (YOLOv4)."""
    size = pictures[0].shape[-1]
    half = size // 2
    small = F.interpolate(torch.stack(list(pictures)), (half, half), mode="bilinear", antialias=True)
    rows = [torch.cat([small[first], small[first + 1]], -1) for first in (0, 2)]
    whole = F.pad(torch.cat(rows, -2), (0, size - 2 * half, 0, size - 2 * half), mode="replicate")
    moved = []
    for number, target in enumerate(targets):
        corner = torch.tensor([number % 2, number // 2] * 2) * half
        moved.append(torch.cat([target[:, :1], target[:, 1:] * (half / size) + corner], 1))
    return whole, torch.cat(moved)
