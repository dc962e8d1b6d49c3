"""Figures of cross-validation: every picture examined once, intervals over units, models compared on the same folds.

The interval of the accuracy is that of Bayle, Bayle, Janson and Mackey (2020, arXiv 2007.12671): the mean of the
out-of-fold losses is asymptotically normal around the mean error of the models of the folds, with the variance of the
losses over all pictures as its variance. Here the pictures of a unit are summed first, and the interval is Wilson's. At
few pictures it covers too rarely, since the models of the folds share what they learn from (of that variance there is
no unbiased estimate: Bengio and Grandvalet 2004), and is widened: `widen`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headstart.cross_validation.folds import Examined
from headstart.metrics.calibration import ClassifierPredictions
from headstart.metrics.calibration_error import log_loss_interval
from headstart.metrics.classification import ClassifierMetrics, compute_metrics
from headstart.metrics.estimate import Estimate
from headstart.metrics.intervals import SAME_MODEL, difference_interval, mean_interval
from headstart.metrics.label_shares import ClassMetrics

INSTABILITY, SHARED_LEARNING = 0.2, 10  # of the variance: a share, and in pictures; see `widen`


@dataclass(frozen=True)
class Alternative:
    """Another model on the same folds.

    Attributes:
        accuracy: of it.
        log_loss: of its calibrated probabilities.
        difference: its accuracy minus that of the model that the figures are of, picture by picture.
    """

    accuracy: Estimate
    log_loss: Estimate
    difference: Estimate


@dataclass(frozen=True)
class CrossValidation:
    """What cross-validation found.

    Attributes:
        examined: the pictures, with their folds.
        model: which one the figures are of: `head` or `fine_tuned`.
        learned: pictures that a fold learned from, on average; copies are not counted.
        set_aside: pictures that a fold set aside to choose its epoch, on average.
        predictions: by model, `head` and, where fine-tuning was repeated, `fine_tuned`.
        metrics: of `model`. Rankings (ROC AUC) are pooled over the folds.
        alternatives: by name, `head` and `mean` (of both models' probabilities) among them where fine-tuning was
            repeated; no `mean` where every fold kept the head.
        pinned: pictures that their source pins to test, which stay apart.
        skipped: why other heads were not tried; else empty.
    """

    examined: Examined
    model: str
    learned: float
    set_aside: float
    predictions: Mapping[str, ClassifierPredictions]
    metrics: ClassifierMetrics
    alternatives: Mapping[str, Alternative]
    pinned: int = 0
    skipped: str = ""

    @property
    def units(self) -> int:
        """How many units the pictures form."""
        return len(np.unique(self.examined.units))


def widen(estimate: Estimate, pictures: int) -> Estimate:
    """The interval of a cross-validated figure, from that of as many pictures examined by one model.

    Its width is multiplied by the square root of 1 + INSTABILITY + SHARED_LEARNING / pictures: 1.19 at 44 pictures,
    1.11 at 400. Both are from simulation (benchmarks/coverage_cross_validation.py): with neither, intervals cover too
    rarely at few pictures, and where a head with little weight decay learns from the sample's pictures.

    Args:
        estimate: a share, a loss, or a difference of two shares.
        pictures: examined.
    """
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return estimate
    factor = float(np.sqrt(1 + INSTABILITY + SHARED_LEARNING / pictures))
    low, high = (estimate.value + (end - estimate.value) * factor for end in (estimate.low, estimate.high))
    if estimate.low >= 0 and estimate.high <= 1:
        low, high = max(low, 0.0), min(high, 1.0)
    return replace(estimate, low=low, high=high)


def measure(predictions: ClassifierPredictions, labels: Sequence[str], seed: int) -> ClassifierMetrics:
    """All metrics of one model's answers out of fold, every interval widened; arguments as in `compute_metrics`."""
    metrics = compute_metrics(predictions, labels, seed)
    widened: dict[str, Any] = {name: widen(one, metrics.pictures) for name, one in metrics.estimates().items()}
    per_class = {name: _widen_class(of_label) for name, of_label in metrics.per_class.items()}
    return replace(metrics, per_class=per_class, **widened)


def _widen_class(of_label: ClassMetrics) -> ClassMetrics:
    """A label's metrics are of its own pictures, which are fewer than all."""
    pictures = max(of_label.support, 1)
    return replace(
        of_label,
        precision=widen(of_label.precision, pictures),
        recall=widen(of_label.recall, pictures),
        f1=widen(of_label.f1, pictures),
    )


def compare(other: ClassifierPredictions, measured: ClassifierPredictions) -> Alternative:
    """Another model's accuracy and log loss, and its accuracy minus that of the measured one."""
    same, pictures = np.array_equal(other.raw, measured.raw), len(other.labels)
    difference = difference_interval(other.correct - measured.correct, other.units)
    return Alternative(
        accuracy=widen(mean_interval(other.correct, other.units), pictures),
        log_loss=widen(log_loss_interval(other.calibrated, other.labels, other.units), pictures),
        difference=SAME_MODEL if same else widen(difference, pictures),
    )
