"""Activations of pictures as rows (n, width), one a picture, and back: what the cache of a frozen part holds.

Both functions can be traced (torch.fx): they take shapes as plain numbers instead of asking tensors.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

Shapes = Sequence[Sequence[int]]  # of one picture's activations; (c, h, w) is a feature map


def activations_to_rows(activations: Iterable[Tensor], shapes: Shapes) -> Tensor:
    """Activations (n, *shape) -> rows (n, width), one after another, feature maps in the order of channels_last."""
    ordered = [
        value.permute(0, 2, 3, 1) if len(shape) == 3 else value
        for value, shape in zip(activations, shapes, strict=True)
    ]
    return torch.cat([value.flatten(1) for value in ordered], 1)


def rows_to_activations(rows: Tensor, shapes: Shapes) -> list[Tensor]:
    """Rows (n, width) -> activations (n, *shape), feature maps in channels_last."""
    activations, start = [], 0
    for shape in shapes:
        flat = rows[:, start : start + math.prod(shape)]
        start += math.prod(shape)
        if len(shape) == 3:
            channels, height, width = shape
            activations.append(flat.reshape(-1, height, width, channels).permute(0, 3, 1, 2))
        else:
            activations.append(flat.reshape(-1, *shape))
    return activations
