"""Out-of-distribution score of a picture: how far its features lie from those of training pictures. No torch, no disk.

`benchmarks/unknown.py` compares it with energy, Mahalanobis distance and virtual-logit matching.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Floats, Floats32, Ints

METHOD = "distance to the 5th nearest training picture"
NEIGHBOURS = 5
BANK = 1000  # training pictures kept, at most
COMPONENTS = 64  # principal components in which they are kept: 0.25 MB for a thousand pictures
KEPT = 0.95  # share of pictures like the training pictures that the threshold keeps
_SMALLEST_NORM = 1e-12


@dataclass(frozen=True)
class FeatureBank:
    """Features of training pictures, from which distances are measured.

    Each part of the features is first divided by its length. What lies outside of the principal components is not in
    the bank's rows; of the picture that is asked about it counts as distance.

    Attributes:
        mean: of the normalized features, (f,).
        components: orthonormal columns, (f, r).
        rows: the training pictures' coordinates, (m, r).
        neighbours: the distance to the how manieth nearest one counts.
        widths: of the parts of the features (the last features, those of each block); their sum is f.
    """

    mean: Floats32
    components: Floats32
    rows: Floats32
    neighbours: int
    widths: tuple[int, ...]

    def strangeness(self, features: Floats) -> Floats:
        """The scores (n,) of features (n, f), 0 or more; the larger, the stranger."""
        centred = normalize_features(features, self.widths) - self.mean
        inside = centred @ self.components
        outside = np.maximum((centred**2).sum(1) - (inside**2).sum(1), 0)
        squares = (inside**2).sum(1)[:, None] + (self.rows.astype(np.float64) ** 2).sum(1) - 2 * inside @ self.rows.T
        nearest = np.partition(squares, self.neighbours - 1, axis=1)[:, self.neighbours - 1]
        return np.asarray(np.sqrt(np.maximum(nearest, 0) + outside))


def fit_feature_bank(features: Floats, widths: Sequence[int]) -> FeatureBank:
    """The bank of training pictures.

    Sun, Ming, Zhu and Li, Out-of-Distribution Detection with Deep Nearest Neighbors, ICML 2022 (arXiv 2204.06507): the
    distance of normalized features to the k-th nearest training picture; here in principal components, with the
    distance from their plane added, and the features of several blocks beside the last ones.

    Args:
        features: of the backbone, (m, f), m > 1.
        widths: of their parts.
    """
    normalized = normalize_features(features, widths)
    mean = normalized.mean(0)
    components = principal_components(normalized - mean, COMPONENTS)
    return FeatureBank(
        mean.astype(np.float32),
        components.astype(np.float32),
        ((normalized - mean) @ components).astype(np.float32),
        min(NEIGHBOURS, len(features)),
        tuple(widths),
    )


def cross_fitted_strangeness(features: Floats, widths: Sequence[int], units: Ints, seed: int, folds: int = 5) -> Floats:
    """Scores (m,) of a bank's own pictures, each by a bank without its unit and those of its fold.

    Only for features of a network that has not learned from these pictures: else they lie nearer to each other than
    new ones do. A bank of four fifths is a little sparser, so that the scores are a little too large.

    Args:
        features: (m, f).
        widths: of their parts.
        units: (m,); there are at least two.
        seed: of the dealing to folds.
        folds: how many.
    """
    count = len(np.unique(units))
    numbers = np.unique(units, return_inverse=True)[1]
    fold = (np.random.default_rng(seed).permutation(count) % folds)[numbers]
    scores = np.empty(len(features))
    for held in np.unique(fold):
        scores[fold == held] = fit_feature_bank(features[fold != held], widths).strangeness(features[fold == held])
    return scores


def pick_for_bank(labels: Ints, seed: int, most: int = BANK) -> Ints:
    """Numbers of the training pictures that the bank keeps, (m,): drawn at random, from every label as many.

    A label with fewer pictures gives all it has. Of pictures as rare as that none would be kept otherwise.

    Args:
        labels: of all training pictures, (n,).
        seed: of the drawing.
        most: pictures kept.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        of_label = order[labels[order] == label]
        rank[of_label] = np.arange(len(of_label))
    return np.sort(order[np.argsort(rank[order], kind="stable")][:most])


def normalize_features(features: Floats, widths: Sequence[int]) -> Floats:
    """Features (n, f), each part of them divided by its length."""
    parts = np.split(np.asarray(features, dtype=np.float64), np.cumsum(widths)[:-1], axis=1)
    lengths = [np.maximum(np.linalg.norm(part, axis=1, keepdims=True), _SMALLEST_NORM) for part in parts]
    return np.concatenate([part / length for part, length in zip(parts, lengths, strict=True)], axis=1)


def principal_components(centred: Floats, most: int) -> Floats:
    """Directions of the largest variance, (f, r), r <= `most`, of centred rows (m, f).

    By the rows' Gram matrix or by their covariance, whichever is smaller.
    """
    from scipy.linalg import eigh

    tall = len(centred) > centred.shape[1]
    matrix = centred.T @ centred if tall else centred @ centred.T
    count = len(matrix)
    values, vectors = eigh(matrix, subset_by_index=(max(0, count - most), count - 1))
    real = values > 1e-9 * max(float(np.trace(matrix)), _SMALLEST_NORM)  # the rest is rounding
    directions = vectors[:, real][:, ::-1]
    if not tall:
        directions = centred.T @ directions / np.sqrt(values[real][::-1])
    return np.asarray(directions)
