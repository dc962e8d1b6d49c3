"""Near-duplicates of a set of pictures: nearer to each other than either is to the rest of the set; no disk access.

Fingerprints are centred and whitened on the set itself, so that what all its pictures have in common (a cell's bars,
a raccoon's face) does not count. A pair's distance is then taken as a part of the distance to a picture's tenth
neighbour: where all pictures are alike, a pair must be much more alike to stand out (local scaling, Zelnik-Manor and
Perona 2004).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Floats, Floats32
from headstart.images.oriented_hash import HashMatch

SHRINKAGE = 0.3  # of the variances, towards their mean: directions of little variance are mostly noise
NEIGHBOUR = 10  # whose distance is the scale; of a small set the middle one
# A pair is a near-duplicate at a distance of at most this part of its scale: so many robust standard deviations below
# what is usual in the set, within these bounds. 0.82 finds nearly all crops of photographs; 0.5 is a set of likes.
LIMIT_SIGMAS = 4.0
LEAST_LIMIT, LARGEST_LIMIT = 0.5, 0.82
SURE_COSINE = 0.8  # of pictures whose hashes are near as well: ten more copies of one picture do not hide it
BLOCK_ROWS = 512


@dataclass(frozen=True)
class Pair:
    """Two pictures by their numbers, first < second.

    Attributes:
        first: number of a picture.
        second: of the other.
        cosine: of their whitened fingerprints.
        distance: (1 - cosine) as a part of the smaller of the two pictures' scales.
        orientation: that the first one has to be in; 0: as it is.
    """

    first: int
    second: int
    cosine: float
    distance: float
    orientation: int = 0


@dataclass(frozen=True)
class NearDuplicates:
    """The pairs that are near-duplicates, the nearest others, and the limit of `distance` between them."""

    pairs: tuple[Pair, ...]
    apart: tuple[Pair, ...]
    limit: float


@dataclass(frozen=True)
class Whitening:
    """Centre (f,), the parts' scales (f,) and directions (f, r): fingerprints -> unit vectors."""

    centre: Floats
    scale: Floats
    directions: Floats

    def apply(self, fingerprints: Floats32) -> Floats32:
        """Whitened fingerprints (n, r) of length 1."""
        rows = (fingerprints.astype(np.float64) - self.centre) / self.scale @ self.directions
        unit: Floats32 = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(np.float32)
        return unit


def fit_whitening(fingerprints: Floats32, widths: Sequence[int]) -> Whitening:
    """The whitening of a set's fingerprints (n, f), whose parts of these widths count alike."""
    rows = fingerprints.astype(np.float64)
    centre = rows.mean(0)
    rows -= centre
    parts = np.split(rows, np.cumsum(widths)[:-1], axis=1)
    scales = [max(float(np.sqrt((part**2).sum(1).mean())), 1e-12) for part in parts]
    scale = np.repeat(scales, widths)
    rows /= scale
    variances, directions = np.linalg.eigh(rows.T @ rows / len(rows))
    variances = np.maximum(variances, 0)
    usual = max(float(variances.sum()) / min(rows.shape), 1e-12)
    return Whitening(centre, scale, directions / np.sqrt(variances + SHRINKAGE * usual))


def find_near_duplicates(
    fingerprints: Floats32,
    widths: Sequence[int],
    matches: Sequence[HashMatch],
    turned: Callable[[Sequence[HashMatch]], Floats32],
    apart: int,
) -> NearDuplicates:
    """The near-duplicates of a set of different files.

    Args:
        fingerprints: (n, f), n > 1.
        widths: of their parts.
        matches: pairs whose hashes are near.
        turned: returns fingerprints of matches' first pictures in the orientation of the match.
        apart: how many of the nearest pairs that are none to return.
    """
    whitening = fit_whitening(fingerprints, widths)
    unit = whitening.apply(fingerprints)
    nearest, scale = _nearest_neighbours(unit)
    pairs = {(pair.first, pair.second): pair for pair in _neighbour_pairs(nearest, scale)}
    limit = _limit(list(pairs.values()), len(unit))
    is_turned = [match for match in matches if match.orientation]
    rows = iter(whitening.apply(turned(is_turned)) if is_turned else unit[:0])
    for match in matches:
        row = next(rows) if match.orientation else unit[match.first]
        pair = _pair(match, min(1.0, float(row @ unit[match.second])), scale)
        known = pairs.get((match.first, match.second), pair)
        pairs[match.first, match.second] = max(known, pair, key=lambda one: one.cosine)
    near_hash = {(match.first, match.second) for match in matches}
    merged: list[Pair] = []
    others: list[Pair] = []
    for key, pair in sorted(pairs.items(), key=lambda item: (item[1].distance, item[0])):
        is_sure = pair.cosine >= SURE_COSINE and key in near_hash
        (merged if pair.distance <= limit or is_sure else others).append(pair)
    return NearDuplicates(tuple(merged), tuple(others[:apart]), limit)


def _nearest_neighbours(unit: Floats32) -> tuple[list[dict[int, float]], Floats]:
    """For each row the others nearer than its scale, with their distances (1 - cosine), and the scales (n,)."""
    count = len(unit)
    neighbour = min(NEIGHBOUR, max(2, (count - 1) // 2), count - 1)
    nearest: list[dict[int, float]] = []
    scales: list[float] = []
    for start in range(0, count, BLOCK_ROWS):
        distances = 1 - unit[start : start + BLOCK_ROWS] @ unit.T
        for offset, row in enumerate(np.maximum(distances, 0)):
            row[start + offset] = np.inf
            order = np.argpartition(row, neighbour - 1)[:neighbour]
            scales.append(float(row[order].max()))
            nearest.append({int(other): float(row[other]) for other in sorted(order.tolist())})
    return nearest, np.array(scales)


def _neighbour_pairs(nearest: Sequence[dict[int, float]], scale: Floats) -> Iterator[Pair]:
    """Pairs of which one is among the other's nearest; some twice."""
    for i, row in enumerate(nearest):
        for j, distance in row.items():
            yield Pair(min(i, j), max(i, j), 1 - distance, distance / max(float(min(scale[i], scale[j])), 1e-12))


def _pair(match: HashMatch, cosine: float, scale: Floats) -> Pair:
    distance = (1 - cosine) / max(float(min(scale[match.first], scale[match.second])), 1e-12)
    return Pair(match.first, match.second, cosine, distance, match.orientation)


def _limit(pairs: Sequence[Pair], count: int) -> float:
    """The limit of the distance, from that of each picture's nearest: an outlier rule with the median deviation."""
    best = np.ones(count)
    for pair in pairs:
        for number in (pair.first, pair.second):
            best[number] = min(best[number], pair.distance)
    usual = float(np.median(best))
    sigma = 1.4826 * float(np.median(np.abs(best - usual)))
    return min(LARGEST_LIMIT, max(LEAST_LIMIT, usual - LIMIT_SIGMAS * sigma))
