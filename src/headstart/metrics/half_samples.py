"""95 % intervals by half-sampling, of figures such as average precision that are no mean over the pictures.

Half of the units are drawn without replacement, many times: a delete-d jackknife with d = n / 2 (Shao and Wu 1989). The
spread of a figure over the halves is its variance, and the halves' mean shows how a figure of fewer pictures is biased.
No picture is repeated, as a bootstrap repeats them, and half of the pictures at a time is enough of a change for
average precision, whose steps delete-one values cannot show. Average precision is a mean over boxes of values in 0..1,
so that the interval is Wilson's (1927) for the number of boxes that would have that variance (as Korn and Graubard
(1998) have it for surveys), with Student's quantile. `benchmarks/coverage_detection.py` has what else was tried.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Floats, Ints
from headstart.metrics.estimate import Estimate
from headstart.metrics.intervals import few_units_note

_BLOCK_SIZE = 1_000_000  # weights in one block of halves: arrays stay small however many pictures there are
# A label whose boxes were all found still has a variance, that of about one box: (this / boxes) ** 2 would be that of
# 1.5 ** 0.5 boxes. With 1 coverage falls to 92 % at an average precision of 0.9 and 60 pictures, with 2 it exceeds 98 %
# at 20 pictures and three labels.
_UNSEEN_VARIANCE = 1.5


@dataclass(frozen=True)
class Support:
    """What a figure rests on.

    Attributes:
        boxes: of each label that the figure is a mean over (or detections, of precision), counted once where a unit has
            several pictures that are alike.
        units: that have such boxes.
        drawn: all units of the test set, of which halves are drawn.
    """

    boxes: tuple[float, ...]
    units: int
    drawn: int

    @property
    def unseen_variance(self) -> float:
        """Of the mean over the labels, where every label has as much of it as one box makes."""
        return float(sum(1 / count**2 for count in self.boxes)) / len(self.boxes) ** 2

    @property
    def effective_boxes(self) -> float:
        """The number of boxes of one label that gives a share the variance of this mean over labels."""
        return len(self.boxes) ** 2 / sum(1 / count for count in self.boxes)

    @property
    def variance_factor(self) -> float:
        """Variance of the whole set's figure / mean square of the halves' differences from it."""
        half = self.drawn // 2
        return half / (self.drawn - half)


def make_support(counts: Sequence[Ints], units: Ints) -> Support | None:
    """The support of a figure that is a mean over labels; None where there is nothing.

    Args:
        counts: of each label, its boxes in each picture, (n,).
        units: the number of each picture's unit, (n,).
    """
    drawn = len(np.unique(units))
    boxes = tuple(float(own.sum()) * drawn / len(units) for own in counts if own.any())
    if not boxes:
        return None
    return Support(boxes, len(np.unique(units[np.sum(counts, axis=0) > 0])), drawn)


def half_samples(units: Ints, times: int, seed: int, width: int = 0) -> Iterator[Floats]:
    """Yield blocks (b, n) of weights, `times` rows in all: 1 where a picture's unit is in the half, else 0.

    Each permutation of the units gives its first half and its last, which are both ends of the same chance: their mean
    is hardly ever far from the whole, so that few rows suffice to see a bias.

    Args:
        units: the number of each picture's unit, (n,); of an odd number of units the half is the smaller one.
        times: number of halves, an odd one rounded up.
        seed: the same seed gives the same rows.
        width: columns that the caller computes of each row, where they are more than the pictures: blocks are smaller
            then, the rows the same.
    """
    numbers = np.unique(units, return_inverse=True)[1]
    count = int(numbers.max()) + 1
    half = count // 2
    rng = np.random.default_rng(seed)
    block_pairs = max(1, _BLOCK_SIZE // max(len(units), width) // 2)
    pairs = (times + 1) // 2
    for start in range(0, pairs, block_pairs):
        order = rng.permuted(np.tile(np.arange(count), (min(block_pairs, pairs - start), 1)), axis=1)
        both = np.stack([order < half, order >= count - half], axis=1).reshape(-1, count)
        yield both.astype(np.float64)[:, numbers]


def half_sample_interval(value: float, halves: Floats, support: Support, level: float = 0.05) -> Estimate:
    """A figure in 0..1 with its interval.

    Args:
        value: of all pictures.
        halves: the same on each half; NaN where it is undefined.
        support: of the figure.
        level: how often the interval may miss the truth; smaller where many intervals shall hold at once.
    """
    variance, bias = _variance_and_bias(value, halves, support)
    if support.units < 2:
        return Estimate(value, note="no interval: one unit shows no spread")
    unseen = _UNSEEN_VARIANCE * support.unseen_variance
    size = (value * (1 - value) + unseen * support.effective_boxes) / (variance + unseen)
    if variance > 0 and 0 < value < 1:
        size = min(size, value * (1 - value) / variance)
    low, high = _wilson(min(max(value - bias, 0.0), 1.0), size, _quantile(support, level))
    return Estimate(value, min(low, value), max(high, value), note=few_units_note(support.units))


def half_sample_difference(value: float, halves: Floats, support: Support) -> Estimate:
    """The paired difference of a figure of two models, in -1..1, with its interval: never of zero width.

    Args:
        value: second model minus first, on all pictures.
        halves: the same on each half, of which both models have the same; NaN where it is undefined.
        support: of the figure.
    """
    if support.units < 2:
        return Estimate(value, note="no interval: one unit shows no spread")
    variance, _ = _variance_and_bias(value, halves, support)
    width = _quantile(support) * float(np.sqrt(variance + support.unseen_variance / 2))
    return Estimate(value, max(value - width, -1.0), min(value + width, 1.0), note=few_units_note(support.units))


def _variance_and_bias(value: float, halves: Floats, support: Support) -> tuple[float, float]:
    defined = halves[~np.isnan(halves)]
    if not len(defined):
        return 0.0, 0.0
    factor = support.variance_factor
    return float(((defined - value) ** 2).mean()) * factor, float(defined.mean() - value) * factor


def _quantile(support: Support, level: float = 0.05) -> float:
    from scipy.special import stdtrit  # Student's; scipy.stats takes a second to import

    return float(stdtrit(support.units - 1, 1 - level / 2))


def _wilson(share: float, size: float, quantile: float) -> tuple[float, float]:
    square = quantile**2 / size
    centre = (share + square / 2) / (1 + square)
    half = float(np.sqrt(share * (1 - share) * square + square**2 / 4)) / (1 + square)
    return max(centre - half, 0.0), min(centre + half, 1.0)
