"""Boxes transformed as their pixels are, and the mosaic of four pictures."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.augment.transforms import SampledTransform, inverse_affine_matrix
from headstart.base.clip_boxes import boxes_that_stay, clip_boxes

BoxArray = npt.NDArray[np.float64]  # (b, 4): xmin, ymin, xmax, ymax


def transform_boxes(
    boxes: BoxArray, transform: SampledTransform, width: float, height: float
) -> tuple[BoxArray, npt.NDArray[np.bool_]]:
    """Boxes of a picture after a transform, cut at its frame, and which of them stay by the rule of `clip_boxes`.

    A rotated or sheared box becomes the upright bounding box of what is left of it within the frame.

    Args:
        boxes: corners (b, 4), in pixels.
        transform: the parameters.
        width: of the picture, in pixels.
        height: of the picture, in pixels.

    Returns:
        Corners (b, 4) in pixels, and a mask (b,).
    """
    size: BoxArray = np.array([width, height])
    x1, y1, x2, y2 = boxes.T
    corners = np.stack([np.stack(pair, -1) for pair in ((x1, y1), (x2, y1), (x1, y2), (x2, y2))], 1)  # (b, 4, 2)
    matrix = np.array(inverse_affine_matrix(transform, width / height))  # output position -> input position, in -1..1
    moved = ((corners / size * 2 - 1) - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    moved = (moved + 1) / 2 * size
    unclipped = np.concatenate([moved.min(1), moved.max(1)], 1)
    if not (transform.rotation or transform.shear):
        return clip_boxes(unclipped, width, height)
    # Where the frame's corners come from: those that come from inside a box are inside its transformed outline.
    frame = np.array([(-1, -1), (1, -1), (-1, 1), (1, 1)])
    origin = ((frame @ matrix[:, :2].T + matrix[:, 2]) + 1) / 2 * size  # (4, 2)
    covered = ((origin >= boxes[:, None, :2]) & (origin <= boxes[:, None, 2:])).all(-1)  # (b, 4)
    clipped = _bounding_boxes_in_frame(moved, covered, size)
    return clipped, boxes_that_stay(unclipped, clipped)


def _bounding_boxes_in_frame(corners: BoxArray, covered: npt.NDArray[np.bool_], size: BoxArray) -> BoxArray:
    """Bounding boxes of what parallelograms have within the frame from 0 to `size`, (b, 4); all 0: nothing.

    Its extremes are corners of the outline within the frame, crossings of the outline with the frame, and corners of
    the frame that the outline covers.

    Args:
        corners: of the parallelograms, (b, 4, 2), in the order of `transform_boxes`.
        covered: which of the frame's corners each of them covers, (b, 4), in that order too.
        size: width and height, (2,).
    """
    count = len(corners)
    points, valid = [corners], [((corners >= 0) & (corners <= size)).all(-1)]
    starts, ends = corners[:, [0, 1, 3, 2]], corners[:, [1, 3, 2, 0]]  # of the four edges
    for axis, side in ((0, 0.0), (0, size[0]), (1, 0.0), (1, size[1])):
        with np.errstate(divide="ignore", invalid="ignore"):  # an edge along this side of the frame
            along = (side - starts[..., axis]) / (ends[..., axis] - starts[..., axis])
        crosses = (along >= 0) & (along <= 1)
        crossing = starts + np.where(crosses, along, 0)[..., None] * (ends - starts)
        crossing[..., axis] = side
        other = crossing[..., 1 - axis]
        points.append(crossing)
        valid.append(crosses & (other >= 0) & (other <= size[1 - axis]))
    points.append(np.broadcast_to(np.array([(0, 0), (1, 0), (0, 1), (1, 1)]) * size, (count, 4, 2)))
    valid.append(covered)
    all_points, is_valid = np.concatenate(points, 1), np.concatenate(valid, 1)[..., None]
    low, high = (np.where(is_valid, all_points, far) for far in (np.inf, -np.inf))
    boxes = np.concatenate([low.min(1), high.max(1)], 1)
    return np.where(is_valid.any(1), boxes, 0.0)


def transform_targets(target: Tensor, transform: SampledTransform, shape: tuple[int, int]) -> Tensor:
    """`transform_boxes` for a picture's targets (m, 5), label and corners in pixels; `shape`: its height and width."""
    boxes, stay = transform_boxes(target[:, 1:].double().numpy(), transform, shape[1], shape[0])
    return torch.cat([target[:, :1], torch.from_numpy(boxes).float()], 1)[torch.from_numpy(stay)]


def make_mosaic(pictures: Sequence[Tensor], targets: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Four pictures (3, h, w) at half their size as one, and their targets. Source: Bochkovskiy et al. 2020 (YOLOv4).

    Args:
        pictures: four of one size, in the order upper left, upper right, lower left, lower right.
        targets: of each, (m, 5): label and corners in pixels.

    Returns:
        One picture (3, h, w) and its targets (sum of m, 5).
    """
    height, width = pictures[0].shape[-2:]
    half_height, half_width = height // 2, width // 2
    small = F.interpolate(torch.stack(list(pictures)), (half_height, half_width), mode="bilinear", antialias=True)
    rows = [torch.cat([small[first], small[first + 1]], -1) for first in (0, 2)]
    mosaic = F.pad(torch.cat(rows, -2), (0, width - 2 * half_width, 0, height - 2 * half_height), mode="replicate")
    scale = torch.tensor([half_width / width, half_height / height] * 2)
    moved = []
    for number, target in enumerate(targets):
        offset = torch.tensor([number % 2 * half_width, number // 2 * half_height] * 2)
        moved.append(torch.cat([target[:, :1], target[:, 1:] * scale + offset], 1))
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
