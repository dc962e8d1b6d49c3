"""Recall, precision, F1 of each label and their mean recall, with intervals."""

from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Bools, Floats, Ints
from headstart.metrics.cluster import design_effect, sum_by_unit, weigh_units
from headstart.metrics.estimate import Estimate
from headstart.metrics.intervals import mean_interval, share_interval, units_note


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class; without value where it was never predicted (precision) or has no picture (recall)."""

    precision: Estimate
    recall: Estimate
    f1: Estimate
    support: int


def class_metrics(labels: Ints, predicted: Ints, number: int, units: Ints) -> ClassMetrics:
    """Precision, recall and F1 of one class.

    F1 is 2 J / (1 + J), J being the share of right answers among the pictures that have the label or are predicted as
    it: its interval is that of J, transformed.

    Args:
        labels: true class numbers, (n,).
        predicted: (n,).
        number: of the class.
        units: (n,).
    """
    own, said = labels == number, predicted == number
    right = (own & said).astype(np.float64)

    def share(of: Bools, absent: str) -> Estimate:
        return mean_interval(right[of], units[of]) if of.any() else Estimate(None, absent=absent)

    either = share(own | said, "no such picture, and none predicted")
    return ClassMetrics(
        precision=share(said, "never predicted"),
        recall=share(own, "no such picture"),
        f1=Estimate(_f1(either.value), _f1(either.low), _f1(either.high), either.absent, either.note),
        support=int(own.sum()),
    )


def _f1(jaccard: float | None) -> float | None:
    return None if jaccard is None else 2 * jaccard / (1 + jaccard)


def balanced_accuracy_interval(correct: Floats, labels: Ints, units: Ints) -> Estimate:
    """The mean recall of the classes that have a picture, each of n_k pictures.

    Its lower end adds up the classes' own intervals (MOVER, Zou and Donner 2008). Of many classes that method's upper
    end is too low; it therefore is at least that of a share of as many pictures as have the variance of the mean, where
    each class has one more picture predicted right and one wrong (Agresti and Coull 1998).

    Args:
        correct: 1.0 where the prediction is the label, else 0.0, (n,).
        labels: class numbers, (n,).
        units: (n,).
    """
    _, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    count = len(sizes)
    hits = np.bincount(classes, weights=correct)
    recall = hits / sizes
    mean = float(recall.mean())
    weights = 1 / (count * sizes[classes])
    influences = weights * (correct - recall[classes])
    sums = sum_by_unit(np.stack([influences, correct, 1 - correct], axis=1), units)
    telling = int(min(np.count_nonzero(sums[:, 1]), np.count_nonzero(sums[:, 2])))
    of_units = weigh_units(weights, units, classes)
    effect = design_effect(sums[:, 0], of_units, float((influences**2).sum()), telling)
    own = effect.effective_size(1.0) * sizes  # effective number of pictures of each class
    lows, highs = np.array([share_interval(share, n) for share, n in zip(recall, own, strict=True)]).T
    smooth = (recall * own + 1) / (own + 2)
    variance = float((smooth * (1 - smooth) / own).sum()) / count**2
    _, high = share_interval(mean, float(smooth.mean() * (1 - smooth.mean())) / variance)
    low = mean - float(np.sqrt(((recall - lows) ** 2).sum())) / count
    high = max(high, mean + float(np.sqrt(((highs - recall) ** 2).sum())) / count)
    return Estimate(mean, max(low, 0.0), min(high, 1.0), note=units_note(of_units))
