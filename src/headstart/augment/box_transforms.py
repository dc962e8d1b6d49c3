"""Boxes transformed as their pixels are, and the mosaic of four pictures."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.augment.transforms import SampledTransform, inverse_affine_matrix

MIN_VISIBLE_SHARE = 0.3  # share of a box that must stay inside the picture
BoxArray = npt.NDArray[np.float64]  # (b, 4): xmin, ymin, xmax, ymax


def transform_boxes(
    boxes: BoxArray, transform: SampledTransform, width: float, height: float
) -> tuple[BoxArray, npt.NDArray[np.bool_]]:
    """Boxes of a picture after a transform, clipped to it, and which of them are still visible.

    A rotated box becomes the upright bounding box of its four corners. A box is not visible if less than 30 % of it
    is inside the picture, or less than a pixel.

    Args:
        boxes: corners (b, 4), in pixels.
        transform: the parameters.
        width: of the picture, in pixels.
        height: of the picture, in pixels.

    Returns:
        Corners (b, 4) in pixels, and a mask (b,).
    """
    size = np.array([width, height])
    x1, y1, x2, y2 = boxes.T
    corners = np.stack([np.stack(pair, -1) for pair in ((x1, y1), (x2, y1), (x1, y2), (x2, y2))], 1)  # (b, 4, 2)
    matrix = np.array(inverse_affine_matrix(transform, width / height))  # output position -> input position, in -1..1
    moved = ((corners / size * 2 - 1) - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    moved = (moved + 1) / 2 * size
    unclipped = np.concatenate([moved.min(1), moved.max(1)], 1)
    clipped = unclipped.clip(0, [*size, *size])
    sides = clipped[:, 2:] - clipped[:, :2]
    share = sides.prod(1) / (unclipped[:, 2:] - unclipped[:, :2]).prod(1).clip(1e-9)
    return clipped, (share >= MIN_VISIBLE_SHARE) & (sides >= 1).all(1)


def transform_targets(target: Tensor, transform: SampledTransform, size: int) -> Tensor:
    """`transform_boxes` for a picture's targets (m, 5), label and corners in pixels of a square input; visible ones."""
    boxes, visible = transform_boxes(target[:, 1:].double().numpy(), transform, size, size)
    return torch.cat([target[:, :1], torch.from_numpy(boxes).float()], 1)[torch.from_numpy(visible)]


def make_mosaic(pictures: Sequence[Tensor], targets: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Four pictures (3, s, s) at half their size as one, and their targets. Source: Bochkovskiy et al. 2020 (YOLOv4).

    Args:
        pictures: four of one size, in the order upper left, upper right, lower left, lower right.
        targets: of each, (m, 5): label and corners in pixels.

    Returns:
        One picture (3, s, s) and its targets (sum of m, 5).
    """
    size = pictures[0].shape[-1]
    half = size // 2
    small = F.interpolate(torch.stack(list(pictures)), (half, half), mode="bilinear", antialias=True)
    rows = [torch.cat([small[first], small[first + 1]], -1) for first in (0, 2)]
    mosaic = F.pad(torch.cat(rows, -2), (0, size - 2 * half, 0, size - 2 * half), mode="replicate")
    moved = []
    for number, target in enumerate(targets):
        offset = torch.tensor([number % 2, number // 2] * 2) * half
        moved.append(torch.cat([target[:, :1], target[:, 1:] * (half / size) + offset], 1))
    return mosaic, torch.cat(moved)


def sample_mosaic_rows(row: int, count: int, probability: float, transform: SampledTransform) -> list[int]:
    """The rows of the pictures that make one training picture: `row` alone, or with three others of `count`.

    The choice depends on the transform's seed.
    """
    rng = np.random.default_rng(transform.seed)
    if rng.random() >= probability:
        return [row]
    return [row, *rng.integers(0, count, 3).tolist()]


def zoom_into_mosaic(transform: SampledTransform) -> SampledTransform:
    """The transform with a further zoom of 1 to 2 at a random place: objects keep half to all of their own size.

    Zoom and place depend on the transform's seed.
    """
    rng = np.random.default_rng([transform.seed, 1])
    zoom = rng.uniform(1, 2)
    x, y = rng.uniform(-0.5, 0.5, 2) * (zoom - 1)
    return replace(
        transform,
        zoom=transform.zoom * zoom,
        shift_x=transform.shift_x + float(x),
        shift_y=transform.shift_y + float(y),
    )
