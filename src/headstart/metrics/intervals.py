"""95 % intervals of shares, means and paired differences that also hold at few pictures and where pictures are alike.

A unit is what is drawn as a whole: a group joined with its near-duplicates, or a picture alone. The interval of a share
is Wilson's (1927) for the effective number of pictures, n / design effect, as Dean and Pagano (2015) have it for
cluster samples: it is never of zero width, and it widens where the pictures of a unit are right or wrong together.
`benchmarks/coverage.py` simulates how often each interval contains the truth.
"""

from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Floats, Ints
from headstart.metrics.cluster import DesignEffect, UnitWeights, Z, design_effect, sum_by_unit, weigh_sizes, weigh_units
from headstart.metrics.estimate import Estimate

FEW_UNITS = 20  # below it an interval is given with a note
FEW_UNITS_OF_LOSSES = 40  # the same of the mean of a loss
SAME_MODEL = Estimate(0.0, note="the same model")  # the difference of a model with itself, which has no interval

_PRIOR_PICTURES = 20  # for how many pictures the variance that a model itself expects counts


def mean_interval(values: Floats, units: Ints) -> Estimate:
    """The mean of a value in 0..1 per picture (accuracy: 1.0 or 0.0), with its cluster-adjusted Wilson interval.

    Args:
        values: (n,), n > 0.
        units: the number of each picture's unit, (n,).
    """
    return ratio_interval(values, np.ones(len(values)), units)


def ratio_interval(numerator: Floats, denominator: Floats, units: Ints) -> Estimate:
    """sum(numerator) / sum(denominator) of pictures, such as recall of a label, with the interval of `mean_interval`.

    Args:
        numerator: in 0..denominator, (n,): 0 or 1 of a picture, or how many of its boxes were found.
        denominator: 0 or more, (n,); its sum is above 0.
        units: (n,).
    """
    found = share_of_units(numerator, denominator, units)
    low, high = share_interval(found.share, found.effect.effective_size(found.total))
    return Estimate(found.share, low, high, note=units_note(found.weights))


@dataclass(frozen=True)
class UnitShare:
    """A share of `total` things such as pictures, with the design effect and the weights of their units."""

    share: float
    total: float
    effect: DesignEffect
    weights: UnitWeights


def share_of_units(numerator: Floats, denominator: Floats, units: Ints) -> UnitShare:
    """What an interval of a share needs; arguments as of `ratio_interval`."""
    assert denominator.sum() > 0, "a ratio of nothing"
    hits, sizes = sum_by_unit(np.stack([numerator, denominator], axis=1).astype(np.float64), units).T
    hits, sizes = hits[sizes > 0], sizes[sizes > 0]
    total = float(sizes.sum())
    share = float(hits.sum()) / total
    telling = int(min(np.count_nonzero(hits > 0), np.count_nonzero(hits < sizes)))
    weights = weigh_sizes(sizes)
    effect = design_effect(hits - share * sizes, weights, total * share * (1 - share), telling)
    return UnitShare(share, total, effect, weights)


def real_mean_interval(values: Floats, units: Ints, expected_variance: float | None = None) -> Estimate:
    """The mean of an unbounded value per picture (log loss), with an interval by Hall's transformation (1992).

    It is the t interval of the units' sums with their skewness removed, which such means need: most losses are small, a
    few large.

    Args:
        values: (n,), n > 0.
        units: (n,).
        expected_variance: of a value, by a model of it: it counts as _PRIOR_PICTURES pictures. A classifier without a
            mistake among few pictures expects some by its own probabilities, which the values cannot show.
    """
    from scipy.special import stdtrit

    mean, weights = float(values.mean()), weigh_units(np.ones(len(values)), units)
    count, note = weights.count, units_note(weights, FEW_UNITS_OF_LOSSES)
    if count < 2:
        return Estimate(mean, note="no interval: one unit shows no spread")
    residuals = sum_by_unit(values - mean, units)
    squares = residuals**2 / weights.shrinkage
    per_unit = count / len(values)
    variance = float(squares.sum()) / count * per_unit**2
    skewness = float((residuals**3).mean()) * per_unit**3 / variance**1.5 if variance > 0 else 0.0
    if expected_variance is not None:
        telling = float(squares.sum() ** 2 / (squares**2).sum()) if variance > 0 else 0.0
        effect = design_effect(residuals, weights, float(((values - mean) ** 2).sum()), telling).effect
        prior = expected_variance * effect * per_unit
        variance = (count * variance + _PRIOR_PICTURES * prior) / (count + _PRIOR_PICTURES)
    if variance == 0:
        return Estimate(mean, note="no interval: all values are the same")
    quantile = float(stdtrit(max(weights.effective - 1, 1), 0.975))
    low, high = (mean - np.sqrt(variance) * _hall(q / np.sqrt(count), skewness, count) for q in (quantile, -quantile))
    low = max(low, 0.0) if values.min() >= 0 else low
    return Estimate(mean, float(min(low, mean)), float(max(high, mean)), note=note)


def _hall(x: float, skewness: float, count: int) -> float:
    """The inverse of Hall's transformation of a standardized mean."""
    if abs(skewness) < 1e-6:
        return x
    return float(3 / skewness * (np.cbrt(1 + skewness * (x - skewness / (6 * count))) - 1))


def difference_interval(differences: Floats, units: Ints) -> Estimate:
    """The mean of paired differences in -1..1 (1: only the second model is right), with an adjusted Wald interval.

    Bonett and Price (2012) for paired proportions: one more picture is counted for each model, which also gives two
    models that differ nowhere an interval. Two models that are one function have `SAME_MODEL` instead: differences
    cannot tell the two cases apart.

    Args:
        differences: (n,), n > 0.
        units: (n,).
    """
    mean, square = float(differences.mean()), float((differences**2).mean())
    sums, sizes, changed = sum_by_unit(
        np.stack([differences, np.ones(len(differences)), np.abs(differences)], axis=1), units
    ).T
    weights, spread = weigh_sizes(sizes), len(differences) * (square - mean**2)
    effect = design_effect(sums - mean * sizes, weights, spread, int(np.count_nonzero(changed)))
    size = effect.effective_size(len(differences)) + 2
    centre = mean * (size - 2) / size
    width = Z * float(np.sqrt(((square * (size - 2) + 2) / size - centre**2) / size))
    low, high = max(centre - width, -1.0), min(centre + width, 1.0)
    return Estimate(mean, min(low, mean), max(high, mean), note=units_note(weights))


def few_units_note(units: int, least: int = FEW_UNITS) -> str:
    """Why an interval may not hold: fewer than `least` units; else empty."""
    return "" if units >= least else f"only {units} unit{'' if units == 1 else 's'}"


def units_note(weights: UnitWeights, least: int = FEW_UNITS) -> str:
    """The same, also where there are enough units and a few large ones are most of the pictures."""
    if weights.count < least or weights.effective > least - 0.01:
        return few_units_note(weights.count, least)
    return f"a few of the {weights.count} units have most of the pictures"


def share_interval(share: float, pictures: float) -> tuple[float, float]:
    """Wilson's interval (1927) of a share of `pictures`, which need not be a whole number.

    Its ends are too near to the share where there are one or two mistakes, or one or two hits (at 20 pictures its
    coverage falls to 84 % near a rate of 0.99); there it reaches as far as Clopper and Pearson's one-sided 95 % bound
    (1934), for which Brown, Cai and DasGupta (2001) take a Poisson bound. From 20 pictures on it covers 92.9 % or more.
    """
    from scipy.special import betaincinv

    hits, misses = share * pictures, (1 - share) * pictures
    centre = (share + Z**2 / (2 * pictures)) / (1 + Z**2 / pictures)
    half = Z / (1 + Z**2 / pictures) * np.sqrt(share * (1 - share) / pictures + Z**2 / (4 * pictures**2))
    low = min(centre - half, betaincinv(hits, misses + 1, 0.05)) if hits > 1e-9 else 0.0
    high = max(centre + half, betaincinv(hits + 1, misses, 0.95)) if misses > 1e-9 else 1.0
    return max(0.0, min(float(low), share)), min(1.0, max(float(high), share))


def logit_interval(share: float, pictures: float) -> tuple[float, float]:
    """The interval of a share strictly between 0 and 1 on the logit scale, from its effective number of pictures."""
    logit, width = np.log(share / (1 - share)), Z / np.sqrt(pictures * share * (1 - share))
    return float(1 / (1 + np.exp(width - logit))), float(1 / (1 + np.exp(-width - logit)))
