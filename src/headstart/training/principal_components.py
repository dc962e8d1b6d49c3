"""Principal axes of the training features: the directions of the largest variance."""

import numpy as np
import torch
from torch import Tensor

MAX_ROWS = 1024  # pictures that the axes are taken from, where there are more of them and of features


def principal_axes(standardised: Tensor, count: int, seed: int) -> Tensor:
    """The first `count` axes (f, c), orthonormal columns, the largest variance first; fewer where there are no more.

    Args:
        standardised: features (n, f), float64, of mean 0.
        count: how many at most.
        seed: chooses the pictures, where there are too many.
    """
    rows, width = standardised.shape
    if min(rows, width) > MAX_ROWS:
        chosen = np.random.default_rng(seed).permutation(rows)[:MAX_ROWS]
        standardised, rows = standardised[torch.from_numpy(np.sort(chosen))], MAX_ROWS
    if width <= rows:
        values, vectors = torch.linalg.eigh(standardised.T @ standardised)
    else:  # the same axes from the smaller matrix
        values, vectors = torch.linalg.eigh(standardised @ standardised.T)
        vectors = standardised.T @ (vectors / values.clamp(min=1e-12).sqrt())
    kept = values > 1e-9 * values[-1]
    axes: Tensor = vectors[:, kept].flip(1)[:, :count].contiguous()
    return axes
