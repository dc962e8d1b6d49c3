"""Area under the ROC curve with its interval: of the last of two labels, else the mean over one-vs-rest."""

from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Bools, Floats, Ints
from headstart.metrics.cluster import UnitWeights, design_effect, sum_by_unit, weigh_units
from headstart.metrics.estimate import Estimate
from headstart.metrics.intervals import logit_interval, share_interval, units_note

_FEW_MISPLACED = 0.5
_PRIOR_MISTAKES = 4  # for how many misplaced pictures the variance by Hanley and McNeil counts


@dataclass(frozen=True)
class _Placements:
    """The area of one label against the rest.

    `placements` (n,) are the shares of the other side's pictures that are on the right side of each picture (DeLong's
    structural components), `influences` (n,) what each picture adds to the area, scaled so that their squares add up to
    DeLong's variance.
    """

    area: float
    placements: Floats
    influences: Floats


def roc_auc_interval(probabilities: Floats, labels: Ints, units: Ints) -> Estimate:
    """ROC AUC with its logit-DeLong interval (DeLong et al. 1988), cluster-robust (Obuchowski 1997).

    DeLong's variance comes from the pictures on the wrong side of others: of few it says little, of none that it is 0.
    Hanley and McNeil's (1982), which follows from the area and the numbers of pictures, therefore counts as
    _PRIOR_MISTAKES pictures beside them. Where every picture is on the right side, the interval is that of a share of
    as many pictures as have that variance.

    Args:
        probabilities: (n, classes).
        labels: class numbers, (n,); every class has a picture.
        units: (n,).
    """
    classes = probabilities.shape[1]
    sizes = np.bincount(labels, minlength=classes)
    of_classes = [1] if classes == 2 else list(range(classes))
    found = [_place(probabilities[:, c], labels == c) for c in of_classes]
    area = float(np.mean([one.area for one in found]))
    influences = np.mean([one.influences for one in found], axis=0)
    wrong = np.stack([one.placements < 1 for one in found], axis=1)
    is_own = np.stack([labels == c for c in of_classes], axis=1)
    wrong_own, wrong_other = (wrong & is_own).any(axis=1), (wrong & ~is_own).any(axis=1)
    expected = _hanley_mcneil_size(area, sizes[of_classes], len(labels))
    telling = int(min(np.count_nonzero(wrong_own), np.count_nonzero(wrong_other)))
    size, variance = expected, float((influences**2).sum())
    if 0 < area < 1 and variance > 0 and sizes.min() > 1:
        seen, weight = area * (1 - area) / variance, telling / (telling + _PRIOR_MISTAKES)
        size = min(seen, seen**weight * expected ** (1 - weight))
    sums = sum_by_unit(np.stack([influences, wrong_own, wrong_other], axis=1), units)
    telling = int(min(np.count_nonzero(sums[:, 1]), np.count_nonzero(sums[:, 2])))
    weights = _weigh(labels, units)
    size = design_effect(sums[:, 0], weights, variance, telling).effective_size(size)
    return Estimate(area, *_interval(area, size), note=units_note(weights))


def _interval(area: float, size: float) -> tuple[float, float]:
    """The logit interval of an area, like that of a share of `size` pictures.

    With less than half a picture misplaced the logit interval widens without limit (an area of 0.9998 and 100 pictures:
    0.005 to 1), while such an area leaves hardly more doubt than an area of 1: there it is the share's own interval.
    """
    return (share_interval if size * min(area, 1 - area) < _FEW_MISPLACED else logit_interval)(area, size)


def ranking_interval(scores: Floats, positive: Bools, units: Ints) -> Estimate:
    """Probability that a positive picture's score is above another's, with the interval of `roc_auc_interval`.

    Args:
        scores: any finite numbers, (n,).
        positive: (n,); some are, and some are not.
        units: (n,).
    """
    return roc_auc_interval(np.stack([-scores, scores], axis=1), positive.astype(np.int64), units)


def _place(scores: Floats, positive: Bools) -> _Placements:
    """DeLong's structural components; a tie counts half."""
    placements = np.empty(len(scores))
    for own, sign in ((positive, 1), (~positive, -1)):
        others = np.sort(sign * scores[~own])
        below, not_above = (np.searchsorted(others, sign * scores[own], side) for side in ("left", "right"))
        placements[own] = (below + not_above) / 2 / len(others)
    area = float(placements[positive].mean())
    influences = np.empty(len(scores))
    for own in (positive, ~positive):
        count = int(np.count_nonzero(own))
        influences[own] = (placements[own] - area) / np.sqrt(count * max(count - 1, 1))
    return _Placements(area, placements, influences)


def _hanley_mcneil_size(area: float, positives: Ints, pictures: int) -> float:
    """Number of pictures of which a share as large as the area has Hanley and McNeil's variance.

    Of the mean over several labels, where each mistake counts in the areas of two labels. An area below 0.5 has that of
    the same scores with their signs changed.
    """
    negatives, area = pictures - positives, max(area, 1 - area)
    of_positives, of_negatives = (1 - area) / (2 - area), area / (1 + area)
    each = positives * negatives / (1 + (positives - 1) * of_positives + (negatives - 1) * of_negatives)
    return float(each[0] if len(each) == 1 else len(each) ** 2 / (2 / each).sum())


def _weigh(labels: Ints, units: Ints) -> UnitWeights:
    """A picture weighs as much as its label is rare."""
    sizes = np.bincount(labels)
    weights = (1 / sizes)[labels] + sum(
        np.where(labels == c, 0, 1 / (len(labels) - size)) for c, size in enumerate(sizes) if size < len(labels)
    )
    return weigh_units(weights, units, labels)
