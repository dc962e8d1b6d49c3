"""Accuracy by slice: pictures divided by one property, each slice against the rest, corrected for their number."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Bools, Floats, Ints
from headstart.metrics.bootstrap import Estimate
from headstart.metrics.cluster import design_effect, sum_by_unit, weigh_sizes
from headstart.metrics.intervals import few_units_note

LEAST_PICTURES = 5  # of a slice; smaller ones are one slice together
MOST_DISTINCT = 6  # different numbers that are slices of their own; more are divided at their quartiles
OTHERS = "others"
NO_VALUE = "none"


@dataclass(frozen=True)
class Slicing:
    """A division of n pictures by one property.

    Attributes:
        key: the property, such as `source`.
        names: of the slices.
        numbers: the number of each picture's slice, (n,).
        pictures_alone: a slice is one unit, a group: its figures are about more pictures of the same group.
    """

    key: str
    names: tuple[str, ...]
    numbers: Ints
    pictures_alone: bool = False


@dataclass(frozen=True)
class SliceFigure:
    """A slice's figures.

    Attributes:
        key: the property.
        name: the slice.
        pictures: how many it has.
        accuracy: with an interval that holds for all slices at once (Bonferroni).
        rest: accuracy on all other pictures, with such an interval.
        is_worse: whether the slice is worse than the rest, corrected for the number of slices.
    """

    key: str
    name: str
    pictures: int
    accuracy: Estimate
    rest: Estimate
    is_worse: bool


def slice_by_value(
    key: str,
    values: Sequence[str | None],
    *,
    order: Callable[[str], float] | None = None,
    pictures_alone: bool = False,
) -> Slicing:
    """A slice for each value, in the order of their names (or of `order`); small ones together are `others`."""
    named = [NO_VALUE if value is None else value for value in values]
    counts = Counter(named)
    kept = sorted(name for name in counts if counts[name] >= LEAST_PICTURES)
    kept.sort(key=order or (lambda name: 0.0))
    small = len(counts) - len(kept)
    names = (*kept, *([f"{OTHERS} ({small} with fewer than {LEAST_PICTURES} pictures)"] if small else []))
    numbers = {name: number for number, name in enumerate(kept)}
    return Slicing(key, names, np.array([numbers.get(name, len(kept)) for name in named], np.int64), pictures_alone)


def slice_by_number(key: str, values: Floats, describe: Callable[[float], str] = "{:g}".format) -> Slicing:
    """A slice for each number where they are at most MOST_DISTINCT, else for each quarter of the pictures.

    Args:
        key: the property.
        values: (n,); NaN where a picture has none.
        describe: a number as text.
    """
    known = values[~np.isnan(values)]
    distinct = np.unique(known)
    if len(distinct) <= MOST_DISTINCT:
        of_text = {describe(value): float(value) for value in distinct}
        texts = [None if np.isnan(value) else describe(value) for value in values]
        return slice_by_value(key, texts, order=lambda name: of_text.get(name, np.inf))
    edges = np.unique(np.quantile(known, (0, 0.25, 0.5, 0.75, 1), method="inverted_cdf"))
    quarters = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, len(edges) - 2)  # (low, high] but the first
    names = [f"{describe(low)} to {describe(high)}" for low, high in itertools.pairwise(edges)]
    texts = [None if np.isnan(value) else names[quarter] for value, quarter in zip(values, quarters, strict=True)]
    return slice_by_value(key, texts, order=lambda name: names.index(name) if name in names else len(names))


def slice_figures(slicings: Sequence[Slicing], correct: Floats, units: Ints) -> list[SliceFigure]:
    """Figures of all slices, in the order of `slicings` and the worst slice of each first.

    A slice is worse than the rest where the interval of the difference lies below 0: the square-and-add interval of two
    shares (Newcombe 1998) from the intervals of both, at the level 0.05 divided by the number of all slices.

    Args:
        slicings: divisions of the same n pictures; one with a single slice has no rest and is left out.
        correct: 1.0 where the prediction is the label, else 0.0, (n,).
        units: the number of each picture's unit, (n,).
    """
    divided = [slicing for slicing in slicings if len(np.unique(slicing.numbers)) > 1]
    level = 0.05 / max(1, sum(len(slicing.names) for slicing in divided))
    figures = []
    for slicing in divided:
        own = [_figure(slicing, number, correct, units, level) for number in range(len(slicing.names))]
        figures += sorted(own, key=lambda figure: (figure.accuracy.value or 0.0, -figure.pictures))
    return figures


def _figure(slicing: Slicing, number: int, correct: Floats, units: Ints, level: float) -> SliceFigure:
    inside: Bools = slicing.numbers == number
    own_units = np.arange(int(inside.sum())) if slicing.pictures_alone else units[inside]
    own = simultaneous_interval(correct[inside], own_units, level)
    rest = simultaneous_interval(correct[~inside], units[~inside], level)
    assert own.value is not None
    assert own.high is not None
    assert rest.value is not None
    assert rest.low is not None
    above = np.hypot(own.high - own.value, rest.value - rest.low)
    is_worse = bool(own.value - rest.value + above < 0)
    return SliceFigure(slicing.key, slicing.names[number], int(inside.sum()), own, rest, is_worse)


def simultaneous_interval(correct: Floats, units: Ints, level: float) -> Estimate:
    """A share with an interval that misses with the probability `level`, for one of many that shall all hold at once.

    Clopper and Pearson's (1934) for the effective number of pictures (Korn and Graubard 1998).

    Args:
        correct: 1.0 or 0.0, (n,), n > 0.
        units: the number of each picture's unit, (n,).
        level: such as 0.05 divided by the number of intervals.
    """
    from scipy import stats
    from scipy.special import betaincinv

    hits, sizes = sum_by_unit(np.stack([correct, np.ones(len(correct))], axis=1), units).T
    share, pictures = float(correct.mean()), len(correct)
    telling = int(min(np.count_nonzero(hits > 0), np.count_nonzero(hits < sizes)))
    alike = float((sizes**2).sum()) / pictures
    effect = design_effect(hits - share * sizes, weigh_sizes(sizes), pictures * share * (1 - share), telling).effect
    if alike > 1:  # the effect is estimated from so many units
        normal, student = stats.norm.isf(level / 2), stats.t.isf(level / 2, max(len(sizes) - 1, 1))
        effect *= float(student / normal) ** 2
    right, wrong = share * pictures / effect, (1 - share) * pictures / effect
    low = float(betaincinv(right, wrong + 1, level / 2)) if right > 0 else 0.0
    high = float(betaincinv(right + 1, wrong, 1 - level / 2)) if wrong > 0 else 1.0
    return Estimate(share, min(low, share), max(high, share), note=few_units_note(len(sizes)) if alike > 1 else "")
