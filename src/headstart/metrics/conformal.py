"""Conformal prediction sets: the labels that a picture may have, at a promised share of sets that hold the right one.

No torch, and no disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Bools, Floats, Ints

METHOD = "LAC, by label"
MIN_UNITS = 50  # of a label: with fewer, labels share a threshold, which would otherwise scatter too much


@dataclass(frozen=True)
class PredictionSets:
    """The rule that makes a set of labels of a picture's probabilities.

    A label is in the set if its probability reaches its threshold; the most probable one is always in it.

    Attributes:
        confidence: share of the sets that hold the right label, as promised.
        thresholds: least probability, (labels,); 0: the label is in every set.
        note: why the promise may not be kept, or what it costs; empty where it holds.
        for_each_label: every label has a threshold of its own, so that the share is promised for each.
    """

    confidence: float
    thresholds: Floats
    note: str = ""
    for_each_label: bool = False

    def contain(self, probabilities: Floats) -> Bools:
        """Which labels are in the set of each picture, (n, labels), for probabilities (n, labels)."""
        contained = np.asarray(probabilities) >= self.thresholds
        contained[np.arange(len(contained)), np.asarray(probabilities).argmax(1)] = True
        return np.asarray(contained)


def fit_prediction_sets(probabilities: Floats, labels: Ints, units: Ints, confidence: float) -> PredictionSets:
    """Thresholds from pictures that the model has not learned from.

    Split conformal prediction (Vovk et al. 2005) with the least ambiguous sets (LAC: Sadinle, Lei and Wasserman 2019)
    at thresholds of each label's own, so that the share is promised for every label (label-conditional, "Mondrian").
    Labels with fewer than MIN_UNITS units share a threshold. Sets are never empty: LAC's empty ones get the most
    probable label, which can only raise the share. The promise is for a picture of a unit not seen before; where there
    are too few units for it, it is for a picture of these units, and where there are too few pictures every set holds
    all labels. The note says so.

    Args:
        probabilities: of the model, (n, labels).
        labels: the right ones, (n,).
        units: of the pictures, (n,).
        confidence: 0.5..1.
    """
    count, needed = probabilities.shape[1], least_count(confidence)
    note = ""
    if len(labels) < needed:
        note = (
            f"prediction sets at a confidence of {confidence:g} need at least {needed} pictures to calibrate on, and "
            f"there are {len(labels)}: every set holds all labels"
        )
        return PredictionSets(confidence, np.zeros(count), note)
    if (groups := len(np.unique(units))) < needed:
        units = np.arange(len(labels))
        note = (
            f"the pictures to calibrate on form only {groups} independent groups ({needed} are needed): of pictures "
            f"from other groups fewer than {100 * confidence:g} % of the sets may hold the right label"
        )
    of_own = 1 - np.asarray(probabilities, dtype=np.float64)[np.arange(len(labels)), labels]
    highest = np.empty(count)
    label_groups = _label_groups(labels, units, count, max(needed, MIN_UNITS))
    for together in label_groups:
        chosen = np.isin(labels, together)
        highest[together] = conformal_quantile(of_own[chosen], units[chosen], confidence)
    # Down to the next smaller fp32: at the threshold itself rounding must not put a label out.
    thresholds = np.nextafter(np.clip(1 - highest, 0, 1).astype(np.float32), np.float32(0), dtype=np.float32)
    own = len(label_groups) == count
    return PredictionSets(confidence, np.asarray(thresholds, dtype=np.float64), note, for_each_label=own)


def least_count(confidence: float) -> int:
    """How many units a quantile needs to be finite."""
    return int(np.ceil(confidence / (1 - confidence) - 1e-9))


def conformal_quantile(scores: Floats, units: Ints, confidence: float) -> float:
    """The smallest score that a new unit's picture stays within with at least this probability; infinite: none.

    With a picture in each unit it is the score of rank ceil((n + 1) * confidence). Pictures of one unit share its
    weight (hierarchical conformal prediction: Lee, Barber and Willett 2023, arXiv 2306.06342), which is exact for units
    of any size, however alike their pictures are.

    Args:
        scores: of the calibration pictures, (n,).
        units: (n,).
        confidence: 0..1.
    """
    if not len(scores):
        return float("inf")
    _, number, sizes = np.unique(units, return_inverse=True, return_counts=True)
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(1 / sizes[number[order]]) / (len(sizes) + 1)
    rank = int(np.searchsorted(reached, confidence - 1e-9))
    return float(scores[order[rank]]) if rank < len(scores) else float("inf")


def _label_groups(labels: Ints, units: Ints, count: int, least: int) -> Sequence[list[int]]:
    """Labels that share a threshold: those of fewer than `least` units, filled up by the next smallest; or one."""
    sizes = [len(np.unique(units[labels == label])) for label in range(count)]
    rest: list[int] = []
    own: list[list[int]] = []
    for label in sorted(range(count), key=sizes.__getitem__):
        sharing = len(np.unique(units[np.isin(labels, rest)]))
        if sizes[label] < least or (rest and sharing < least):
            rest.append(label)
        else:
            own.append([label])
    return [*([rest] if rest else []), *own]
