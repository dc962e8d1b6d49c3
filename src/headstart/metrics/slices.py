"""Figures by slice: pictures divided by one property, each slice against the rest, corrected for their number."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Bools, Floats, Ints
from headstart.metrics.estimate import Estimate
from headstart.metrics.intervals import few_units_note, share_of_units

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
        own: its accuracy (of a detector AP50), with an interval that holds for all slices at once (Bonferroni).
        rest: the same on all other pictures, with such an interval.
        is_worse: whether the slice is worse than the rest, corrected for the number of slices.
    """

    key: str
    name: str
    pictures: int
    own: Estimate
    rest: Estimate
    is_worse: bool


# Pictures (n,) of a slice, whether each is a unit of its own, level of the intervals -> figure of them and of the rest.
CompareSlice = Callable[[Bools, bool, float], tuple[Estimate, Estimate]]
Adjust = Callable[[Estimate, int], Estimate]  # An interval and its number of pictures -> the interval that counts.


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


def as_it_is(estimate: Estimate, pictures: int) -> Estimate:
    """The `Adjust` of answers by one model, whose intervals count as they are."""
    return estimate


def slice_figures(
    slicings: Sequence[Slicing], correct: Floats, units: Ints, adjust: Adjust = as_it_is
) -> list[SliceFigure]:
    """Accuracy of all slices, as `compare_slices` gives it.

    Args:
        slicings: divisions of the same n pictures.
        correct: 1.0 where the prediction is the label, else 0.0, (n,).
        units: the number of each picture's unit, (n,).
        adjust: gives an interval of answers by several models its width, from that of one model's and its pictures.
    """

    def compare(inside: Bools, pictures_alone: bool, level: float) -> tuple[Estimate, Estimate]:
        own_units, count = np.arange(len(correct)) if pictures_alone else units, int(inside.sum())
        own = simultaneous_interval(correct[inside], own_units[inside], level)
        rest = simultaneous_interval(correct[~inside], units[~inside], level)
        return adjust(own, count), adjust(rest, len(correct) - count)

    return compare_slices(slicings, compare)


def compare_slices(slicings: Sequence[Slicing], compare: CompareSlice) -> list[SliceFigure]:
    """Figures of all slices, in the order of `slicings` and the worst slice of each first.

    A slice is worse than the rest where the interval of the difference lies below 0: the square-and-add interval of two
    shares (Newcombe 1998) from the intervals of both, at the level 0.05 divided by the number of all slices.

    Args:
        slicings: divisions of the same n pictures; one with a single slice has no rest and is left out.
        compare: gives the figures of a slice and of the rest.
    """
    divided = [slicing for slicing in slicings if len(np.unique(slicing.numbers)) > 1]
    level = 0.05 / max(1, sum(len(slicing.names) for slicing in divided))
    figures = []
    for slicing in divided:
        of_slicing = []
        for number, name in enumerate(slicing.names):
            inside: Bools = slicing.numbers == number
            own, rest = compare(inside, slicing.pictures_alone, level)
            of_slicing.append(SliceFigure(slicing.key, name, int(inside.sum()), own, rest, _is_worse(own, rest)))
        figures += sorted(of_slicing, key=_worst_first)
    return figures


def _worst_first(figure: SliceFigure) -> tuple[bool, float, int]:
    value = figure.own.value
    return value is None, 0.0 if value is None else value, -figure.pictures


def _is_worse(own: Estimate, rest: Estimate) -> bool:
    """Whether the interval of the difference lies below 0; without intervals nothing shows it."""
    if own.value is None or own.high is None or rest.value is None or rest.low is None:
        return False
    return bool(own.value - rest.value + np.hypot(own.high - own.value, rest.value - rest.low) < 0)


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

    found = share_of_units(correct, np.ones(len(correct)), units)
    count, alike, effect = found.weights.count, found.weights.alike > 1, found.effect.effect
    if alike:  # the effect is estimated from so many units
        normal, student = stats.norm.isf(level / 2), stats.t.isf(level / 2, max(count - 1, 1))
        effect *= float(student / normal) ** 2
    right, wrong = found.share * found.total / effect, (1 - found.share) * found.total / effect
    low = float(betaincinv(right, wrong + 1, level / 2)) if right > 0 else 0.0
    high = float(betaincinv(right + 1, wrong, 1 - level / 2)) if wrong > 0 else 1.0
    note = few_units_note(count) if alike else ""
    return Estimate(found.share, min(low, found.share), max(high, found.share), note=note)
