"""Coverage of a detector's intervals: cells for `coverage.py`, drawn by `simulated_detector.py`.

The truth of a figure is what it is on 40,000 pictures; of a few pictures average precision is higher in the mean, as
its interpolation takes the best precision to the right of each recall. A difference is that of two detectors.

Tried for AP50 of one label on independent pictures (300 draws of each cell, 200 resamples; coverage in % at 20, 40 and
100 pictures where AP50 is 0.42, 0.70 and 0.91):

| interval | 0.42 | 0.70 | 0.91 |
|---|---|---|---|
| percentile bootstrap | 89, 90, 94 | 87, 91, 91 | 86, 88, 92 |
| basic (reflected) bootstrap | 87, 90, 90 | 86, 89, 90 | 82, 87, 92 |
| the same on the logit scale | 93, 93, 92 | 93, 95, 93 | 86, 91, 92 |
| Bayesian bootstrap (Dirichlet weights) | 89, 91, 93 | 88, 90, 90 | 85, 87, 92 |
| BCa | 90, 92, 92 | 90, 91, 92 | 87, 90, 92 |
| halves without replacement, rescaled percentiles (subsampling) | 89, 92, 92 | 88, 90, 91 | 83, 87, 93 |
| delete-one jackknife, t | 91, 95, 96 | 93, 94, 94 | 89, 90, 91 |
| the same on the logit scale | 94, 95, 96 | 95, 96, 94 | 90, 93, 90 |
| the same, bias-corrected, logit | 92, 82, 45 | 92, 83, 50 | 85, 78, 56 |
| delete-one jackknife, Wilson for its variance, t | 94, 95, 96 | 96, 95, 95 | 97, 97, 96 |
| halves, Wilson for their variance, t | 94, 94, 95 | 96, 94, 93 | 97, 96, 96 |

The last two are close; but the jackknife's estimate of the bias is useless and its intervals are a tenth wider at 100
pictures, for the hundred steps of the interpolation make delete-one values jump. So it is halves, with their bias
removed (at three labels and AP50 0.37 it is 0.045 at 20 pictures, and without it 7 % of the truths lie below the
interval) and a variance for what few boxes cannot show. Measured so (300 draws, 20 and 40 units, alone and in units of
five, one label and three): AP50 of 0.37 to 0.91: 92 to 98 %; AP of 0.17 to 0.66: 93 to 98 %.

What is promised is 93 to 97 % from FEW_UNITS units with such boxes on and up to an AP50 of 0.94. Above it the hundred
steps allow no such thing: a missed box in 500 costs a whole step of an infinite test set and nothing of a small one, so
that at 0.98 every interval that reaches the truth covers 97 to 100 %; the bootstrap's cover 34 to 55 %.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from coverage_case import Case
from simulated_detector import SimulatedDetector

from headstart.metrics.coco_matching import DetectionMatches
from headstart.metrics.detection import DetectorEvaluation, ap_difference, ap_interval, evaluate_detectors
from headstart.metrics.estimate import Estimate
from headstart.metrics.intervals import FEW_UNITS
from headstart.metrics.threshold import Threshold, operating_point

SKILLS = (-0.45, 0.35, 1.35, 3.0)  # of one label: AP50 about 0.4, 0.7, 0.9 and 0.98
HALVES = 200
POPULATION = 40_000  # pictures of which the truth is computed
THRESHOLD = Threshold(0.5, None)
HIGH = 0.94  # AP50 above which the intervals cover more
UNIT = 5  # pictures of a unit
FIGURES = {"AP50": (20, 40, 60, 100, 400), "AP": (20, 40, 100)}  # pictures of which each is drawn
_AT_THRESHOLD = ("precision", "recall", "f1")

_UNITS_A_BOX = {"AP50 of the rarest label": 3, "precision": 2}  # not every unit has such a box, at least not each time

_Interval = Callable[[list[DetectionMatches]], Estimate]


def cases() -> list[Case]:
    """The cells: average precision by size of the test set, other figures and differences at a few sizes."""
    found = []
    for labels in (1, 3):
        for figure, sizes in FIGURES.items():
            for skill in SKILLS:
                found += [_ap_case(figure, SimulatedDetector((skill,), labels), pictures) for pictures in (10, *sizes)]
                found += [_ap_case(figure, SimulatedDetector((skill,), labels, UNIT), n) for n in (100, 200)]
    for skill in SKILLS[:3]:
        for unit, pictures in ((1, 20), (1, 60), (UNIT, 200)):
            found += [_other_case(name, SimulatedDetector((skill,), 3, unit), pictures) for name in _OTHERS]
            found += [
                _difference_case(figure, SimulatedDetector((skill, skill + gain), labels, unit), pictures)
                for labels in (1, 3)
                for figure in FIGURES
                for gain in (0.0, 0.5)
            ]
    return found


def _ap_case(figure: str, detector: SimulatedDetector, pictures: int) -> Case:
    return _case(figure, detector, pictures, lambda models: ap_interval(models[0], figure, resamples=HALVES))


def _difference_case(figure: str, detector: SimulatedDetector, pictures: int) -> Case:
    def interval(models: list[DetectionMatches]) -> Estimate:
        return ap_difference(models[0], models[1], figure, resamples=HALVES)

    return _case(f"difference of {figure}", detector, pictures, interval)


def _other_case(figure: str, detector: SimulatedDetector, pictures: int) -> Case:
    def interval(models: list[DetectionMatches]) -> Estimate:
        model = (models[0], THRESHOLD)
        names = [str(number) for number in range(detector.labels)]
        evaluation = evaluate_detectors(model, model, names, crowds=0, resamples=HALVES, seed=0)
        return _OTHERS[figure](evaluation)

    return _case(figure, detector, pictures, interval)


_OTHERS: dict[str, Callable[[DetectorEvaluation], Estimate]] = {
    "AR_100": lambda found: found.fine_tuned.estimates["AR_100"],
    "precision": lambda found: found.fine_tuned.at_threshold["precision"],
    "recall": lambda found: found.fine_tuned.at_threshold["recall"],
    "f1": lambda found: found.fine_tuned.at_threshold["f1"],
    "AP50 of the rarest label": lambda found: found.fine_tuned.per_class["2"].ap50,
}


def _case(figure: str, detector: SimulatedDetector, pictures: int, interval: _Interval) -> Case:
    truth = _truth(figure, detector.skills, detector.labels)

    def draw(rng: np.random.Generator) -> tuple[float, float, float]:
        found = interval(detector.draw(rng, pictures))
        if found.low is None or found.high is None or found.value is None:
            return -np.inf, np.inf, np.nan
        return found.low, found.high, found.value

    labels = "1 label" if detector.labels == 1 else f"{detector.labels} labels"
    alike = f", units of {detector.unit}" if detector.unit > 1 else ""
    name = f"detector {figure}, {labels}{alike}"
    units = -(-pictures // detector.unit)
    if figure.startswith("difference"):
        name += f", {'equal' if len(set(detector.skills)) == 1 else 'unequal'}"
    rate = round(_truth("AP50", detector.skills[:1], detector.labels), 2)
    telling = units / _UNITS_A_BOX.get(figure, 1)
    return Case(name, figure, pictures, units, truth, draw, rate, promised=telling >= FEW_UNITS and rate <= HIGH)


@cache
def _truth(figure: str, skills: tuple[float, ...], labels: int) -> float:
    if figure.startswith("difference"):
        name = figure.rpartition(" ")[2]
        return _truth(name, skills[1:], labels) - _truth(name, skills[:1], labels)
    (matches,) = _population(skills[0], labels)
    if figure in _AT_THRESHOLD:
        return float(getattr(operating_point(matches.classes, THRESHOLD.value), figure))
    if figure == "AP50 of the rarest label":
        return float(matches.precision[0, 0, -1])
    return float(matches.stats[("AP", "AP50").index(figure) if figure in FIGURES else -1])


@cache
def _population(skill: float, labels: int) -> list[DetectionMatches]:
    return SimulatedDetector((skill,), labels).draw(np.random.default_rng(12345), POPULATION)
