"""The kernel of a fitted head: principal components, landmarks and bandwidth from the training features."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headstart.models.kernel_features import rbf_kernel
from headstart.training.principal_components import principal_axes

COMPONENTS = 256
LANDMARKS = 1000
BANDWIDTHS = (0.35, 0.5, 0.7, 1.0, 1.4)  # times the median distance of two pictures
SMALLEST_EIGENVALUE = 1e-4  # of the landmarks' kernel matrix, relative to the largest: below, rounding would show


@dataclass(frozen=True)
class Components:
    """Principal components of standardised features.

    Attributes:
        axes: (f, c), orthonormal columns, the largest variance first.
        rows: of the training pictures, (n, c).
        median_distance: of two of them.
        landmarks: numbers of the pictures that are landmarks.
    """

    axes: Tensor
    rows: Tensor
    median_distance: float
    landmarks: Tensor

    @classmethod
    def of(cls, standardised: Tensor, seed: int) -> "Components":
        """The components of features (n, f), float64; `seed` chooses the landmarks."""
        axes = principal_axes(standardised, COMPONENTS, seed)
        rows = standardised @ axes
        chosen = torch.from_numpy(np.random.default_rng(seed).permutation(len(rows))[:LANDMARKS])
        distances = torch.pdist(rows[chosen])
        median = float(distances.median()) if len(distances) else 1.0
        return cls(axes, rows, median or 1.0, chosen)


@dataclass(frozen=True)
class Kernel:
    """RBF kernel features of the training pictures at one bandwidth.

    Attributes:
        scale: a component times this is what the kernel takes.
        whitening: (landmarks, r).
        rows: features of the training pictures, (n, r).
    """

    scale: float
    whitening: Tensor
    rows: Tensor

    @classmethod
    def of(cls, components: Components, bandwidth: float) -> "Kernel":
        """exp(-d^2 / 2 b^2), where b is `bandwidth` times the median distance."""
        scale = 1 / (2**0.5 * bandwidth * components.median_distance)
        rows = components.rows * scale
        landmarks = rows[components.landmarks]
        values, vectors = torch.linalg.eigh(rbf_kernel(landmarks, landmarks))
        kept = values > SMALLEST_EIGENVALUE * values[-1]
        whitening = (vectors[:, kept] / values[kept].sqrt()).flip(1)
        return cls(scale, whitening, rbf_kernel(rows, landmarks) @ whitening)
