"""Cases of coverage.py for a classifier's figures: pictures alone, and in groups that are more or less alike."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np
from coverage_case import Case
from scipy import special, stats

from headstart.base.arrays import Floats, Ints
from headstart.metrics.calibration import ClassifierPredictions
from headstart.metrics.calibration_error import brier_score_interval, calibration_error, log_loss_interval
from headstart.metrics.cluster import weigh_units
from headstart.metrics.estimate import Estimate
from headstart.metrics.intervals import (
    FEW_UNITS,
    FEW_UNITS_OF_LOSSES,
    difference_interval,
    mean_interval,
    units_note,
)
from headstart.metrics.label_shares import balanced_accuracy_interval, class_metrics
from headstart.metrics.roc_auc import roc_auc_interval

PICTURES = (20, 44, 60, 150, 400)  # and 1,000 in groups
RATES = (0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)
RARE = "tens, rarely a bad one"
GROUPS = ("alone", "tens, all alike", "tens, half alike", "groups of 1 to 60", RARE)
_UNEQUAL = (60, 30, 15, 8, 4, 2, 1, 1)  # pictures of a group, again and again

Found = tuple[float, float, float]


def cases() -> list[Case]:
    """All cells of a classifier's figures."""
    return [
        *_share_cases(),
        *_balanced_cases(),
        *_f1_cases(),
        *_roc_auc_cases(),
        *_score_cases(),
        *_calibration_error_cases(),
        *_difference_cases(),
    ]


def make_units(pictures: int, groups: str) -> Ints:
    """The unit of each picture, (n,)."""
    if groups == "alone":
        return np.arange(pictures)
    if groups.startswith("tens"):
        return np.arange(pictures) // 10
    return np.repeat(np.arange(pictures), np.resize(_UNEQUAL, pictures))[:pictures]


def alike_draws(units: Ints, groups: str, rng: np.random.Generator) -> Floats:
    """Uniform numbers in 0..1 of the pictures, (n,).

    `all alike`: the same in a unit. `half alike` and `1 to 60`: normal with a correlation of 0.5 in a unit. `rarely a
    bad one`: seven in ten pictures have their unit's, so that a unit is nearly as good as all others, or bad. Where no
    bad one was drawn, nothing tells of them.
    """
    own, shared = rng.random(len(units)), rng.random(int(units.max()) + 1)[units]
    if groups == "alone":
        return own
    if groups == "tens, all alike":
        return shared
    if groups == RARE:
        return np.where(rng.random(len(units)) < np.sqrt(0.5), shared, own)
    return np.asarray(special.ndtr((special.ndtri(shared) + special.ndtri(own)) * np.sqrt(0.5)))


def _cells() -> Iterator[tuple[str, Ints]]:
    for groups in GROUPS:
        for pictures in PICTURES if groups == "alone" else (*PICTURES, 1000):
            yield groups, make_units(pictures, groups)


def _case(figure: str, what: str, units: Ints, rate: float, truth: float, draw: Callable[..., Estimate]) -> Case:
    def found(rng: np.random.Generator) -> Found:
        one = draw(rng)
        assert one.value is not None
        return (-np.inf if one.low is None else one.low), (np.inf if one.high is None else one.high), one.value

    weights = weigh_units(np.ones(len(units)), units)
    least = FEW_UNITS_OF_LOSSES if figure in ("log_loss", "brier_score") else FEW_UNITS
    promised = not units_note(weights, least) and not what.endswith(RARE)
    if figure == "ece, calibrated":
        promised &= weights.count == len(units)
    return Case(f"{figure}, {what}", figure, len(units), weights.count, truth, found, rate, promised)


def _share_cases() -> Iterator[Case]:
    for groups, units in _cells():
        for rate in RATES:

            def draw(
                rng: np.random.Generator, units: Ints = units, groups: str = groups, rate: float = rate
            ) -> Estimate:
                return mean_interval((alike_draws(units, groups, rng) < rate).astype(np.float64), units)

            yield _case("accuracy", groups, units, rate, rate, draw)


def _balanced_cases() -> Iterator[Case]:
    def draw(drawn: Floats, labels: Ints, units: Ints, rate: float) -> Estimate:
        return balanced_accuracy_interval((drawn < rate).astype(np.float64), labels, units)

    for shares in ((0.15, 0.85), (0.4, 0.3, 0.15, 0.1, 0.05)):
        yield from _labelled_cases("balanced_accuracy", f"{len(shares)} labels", shares, 2, RATES, draw)


def _labelled_cases(
    figure: str,
    what: str,
    shares: tuple[float, ...],
    least: int,
    rates: Sequence[float],
    draw: Callable[[Floats, Ints, Ints, float], Estimate],
) -> Iterator[Case]:
    """Cases of a figure that looks at the labels, where each has `least` pictures or more.

    `draw` gives the figure of uniform numbers (n,), labels (n,), units (n,) and the true value.
    """
    for groups, units in _cells():
        labels = _labels(units, shares)
        if np.bincount(labels, minlength=len(shares)).min() < least:
            continue
        for rate in rates:

            def found(
                rng: np.random.Generator,
                labels: Ints = labels,
                units: Ints = units,
                groups: str = groups,
                rate: float = rate,
            ) -> Estimate:
                return draw(alike_draws(units, groups, rng), labels, units, rate)

            yield _case(figure, f"{what}, {groups}", units, rate, rate, found)


def _labels(units: Ints, shares: tuple[float, ...]) -> Ints:
    """Labels of the pictures: of those of a unit the same, in these shares of the units, at least one of each."""
    count = int(units.max()) + 1
    bounds = np.maximum(np.round(np.cumsum(shares) * count), np.arange(1, len(shares) + 1))
    return np.asarray(np.minimum(np.searchsorted(bounds, np.arange(count), side="right"), len(shares) - 1)[units])


def _f1_cases() -> Iterator[Case]:
    """A label of a third of the pictures; a wrong answer says the other label."""
    for groups, units in _cells():
        for rate in RATES:
            right, missed, false = rate / 3, (1 - rate) / 3, 2 * (1 - rate) / 3
            truth = 2 * right / (2 * right + missed + false)

            def draw(
                rng: np.random.Generator, units: Ints = units, groups: str = groups, rate: float = rate
            ) -> Estimate:
                labels = (alike_draws(units, groups, rng) < 1 / 3) * 1
                predicted = np.where(alike_draws(units, groups, rng) < rate, labels, 1 - labels)
                found = class_metrics(labels, predicted, 1, units).f1
                return found if found.value is not None else Estimate(0.0)  # no picture of it: no interval, no promise

            yield _case("f1", groups, units, rate, truth, draw)


def _roc_auc_cases() -> Iterator[Case]:
    def draw(drawn: Floats, labels: Ints, units: Ints, rate: float) -> Estimate:
        scores = special.ndtr(special.ndtri(drawn) + labels * special.ndtri(rate) * np.sqrt(2))
        return roc_auc_interval(np.stack([1 - scores, scores], axis=1), labels, units)

    for positive in (0.15, 0.5):
        yield from _labelled_cases("roc_auc", f"{positive:.0%} positive", (1 - positive, positive), 1, RATES[:-1], draw)


@cache
def _spread_of(accuracy: float) -> float:
    """Standard deviation of normal logits of a calibrated model of two labels with this accuracy."""
    from scipy.optimize import brentq

    z = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    return float(brentq(lambda spread: special.expit(np.abs(spread * z)).mean() - accuracy, 0.01, 1000))


def _scores_of(accuracy: float, units: Ints, groups: str, rng: np.random.Generator) -> ClassifierPredictions:
    """A perfectly calibrated model's predictions."""
    positive = special.expit(_spread_of(accuracy) * special.ndtri(alike_draws(units, groups, rng)))
    labels = (alike_draws(units, groups, rng) < positive).astype(np.int64)
    probabilities = np.stack([1 - positive, positive], axis=1)
    return ClassifierPredictions(labels, probabilities, probabilities, 1.0, units)


def _score_cases() -> Iterator[Case]:
    intervals = {"log_loss": log_loss_interval, "brier_score": brier_score_interval}
    for name, interval in intervals.items():
        for groups, units in _cells():
            for rate in RATES[:-1]:
                p = special.expit(_spread_of(rate) * stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000))
                expected = special.entr(p) + special.entr(1 - p) if name == "log_loss" else p * (1 - p)

                def draw(
                    rng: np.random.Generator,
                    interval: Callable[[Floats, Ints, Ints], Estimate] = interval,
                    units: Ints = units,
                    groups: str = groups,
                    rate: float = rate,
                ) -> Estimate:
                    found = _scores_of(rate, units, groups, rng)
                    return interval(found.calibrated, found.labels, units)

                yield _case(name, groups, units, rate, float(expected.mean()), draw)


def _calibration_error_cases() -> Iterator[Case]:
    """How often a perfectly calibrated model's error is in the range that is given for it."""
    for groups, units in _cells():
        for rate in (0.8, 0.95):

            def draw(
                rng: np.random.Generator, units: Ints = units, groups: str = groups, rate: float = rate
            ) -> Estimate:
                predictions = _scores_of(rate, units, groups, rng)
                error = calibration_error(predictions, predictions.raw, 0, draws=200)
                inside = error.perfect_low <= error.value <= error.perfect_high
                return Estimate(error.value, 0.0 if inside else 1.0, 1.0)

            yield _case("ece, calibrated", groups, units, rate, 0.0, draw)


def _difference_cases() -> Iterator[Case]:
    for what, gained, lost in (("two equals", 0.5, 0.5), ("one better", 0.6, 0.2)):
        for groups, units in _cells():
            for rate in RATES[:-1]:

                def draw(
                    rng: np.random.Generator,
                    units: Ints = units,
                    groups: str = groups,
                    gain: float = gained * (1 - rate),
                    loss: float = lost * (1 - rate),
                ) -> Estimate:
                    drawn = alike_draws(units, groups, rng)
                    return difference_interval((drawn < gain) * 1.0 - (drawn > 1 - loss) * 1.0, units)

                yield _case("difference", f"{what}, {groups}", units, rate, (gained - lost) * (1 - rate), draw)
