"""Every figure of a detector's report under many weightings of the pictures at once, and what each figure rests on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Floats, Ints
from headstart.metrics.average_precision import AP_ROWS, average_precision, mean_ap
from headstart.metrics.coco_matching import SIZES, ClassMatches, DetectionMatches
from headstart.metrics.half_samples import Support, make_support

# In the order of pycocotools' twelve, of which recall by size is left out.
COCO_STATS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR_1", "AR_10", "AR_100")
AT_THRESHOLD = ("precision", "recall", "f1")
LABEL_FIGURES = ("AP50", "AP")
_MOST_DETECTIONS = {"AR_1": 1, "AR_10": 10, "AR_100": 100}  # of a label and picture, by recall


@dataclass(frozen=True)
class Figures:
    """Figures under b rows of weights; NaN where one is undefined.

    Attributes:
        overall: by the names of COCO_STATS and AT_THRESHOLD, (b,).
        by_label: by the names of LABEL_FIGURES, (classes, b).
    """

    overall: dict[str, Floats]
    by_label: dict[str, Floats]


@dataclass(frozen=True)
class ThresholdCounts:
    """Boxes of all classes in each of n pictures, at IoU 0.5 and a threshold, (n,) each."""

    true_positives: Ints
    detections: Ints
    ground_truths: Ints


def count_at_threshold(classes: Sequence[ClassMatches], threshold: float) -> ThresholdCounts:
    """The detections at or above a threshold, without ignored ones, and the ground truth boxes, by picture."""
    pictures = len(classes[0].ground_truth_counts)

    def count(right: bool) -> Ints:
        chosen = [
            own.image_index[(own.score >= threshold) & (own.true_positive[0] if right else ~own.ignored[0])]
            for own in classes
        ]
        return np.bincount(np.concatenate(chosen), minlength=pictures).astype(np.int64)

    return ThresholdCounts(count(True), count(False), np.sum([own.ground_truth_counts for own in classes], axis=0))


def weighted_figures(matches: DetectionMatches, threshold: float, weights: Floats) -> Figures:
    """All figures under each row of weights (b, n): of a data set that repeats each picture so often."""
    by_class = np.stack([average_precision(own, weights) for own in matches.classes])
    overall = {name: mean_ap(by_class[:, rows]) for name, rows in AP_ROWS.items()}
    for size in SIZES:
        of_size = np.stack([average_precision(own, weights) for own in matches.sizes[size]])
        overall[f"AP_{size}"] = mean_ap(of_size)
    for name, most in _MOST_DETECTIONS.items():
        overall[name] = mean_ap(np.stack([_recall(own, most, weights)[None] for own in matches.classes]))
    counts = count_at_threshold(matches.classes, threshold)
    true_positives, detections, ground_truths = (
        weights @ part for part in (counts.true_positives, counts.detections, counts.ground_truths)
    )
    with np.errstate(invalid="ignore"):
        overall["precision"] = true_positives / detections
        overall["recall"] = true_positives / ground_truths
        overall["f1"] = 2 * true_positives / (detections + ground_truths)
    return Figures(overall, {"AP50": by_class[:, 0], "AP": by_class.mean(axis=1)})


def _recall(matches: ClassMatches, most: int, weights: Floats) -> Floats:
    """Mean recall over the IoU thresholds with the `most` highest scores of each picture, (b,); NaN without a box."""
    pictures = len(matches.ground_truth_counts)
    first = _rank_in_picture(matches.image_index) < most
    found = matches.true_positive[:, first].mean(axis=0)
    by_picture = np.bincount(matches.image_index[first], weights=found, minlength=pictures)
    with np.errstate(invalid="ignore"):
        return np.asarray((weights @ by_picture) / (weights @ matches.ground_truth_counts))


def _rank_in_picture(image_index: Ints) -> Ints:
    """How many detections before this one are in the same picture, (d,)."""
    order = np.argsort(image_index, kind="stable")
    own = image_index[order]
    starts = np.flatnonzero(np.append(True, own[1:] != own[:-1])[: len(own)])
    ranks = np.empty(len(own), np.int64)
    ranks[order] = np.arange(len(own)) - np.repeat(starts, np.diff(np.append(starts, len(own))))
    return ranks


def figure_support(matches: DetectionMatches, name: str, threshold: float = 0.0) -> Support | None:
    """What a figure of COCO_STATS or AT_THRESHOLD rests on; None where it is undefined.

    Args:
        matches: of the test pictures.
        name: of the figure.
        threshold: of a figure of AT_THRESHOLD.
    """
    if name in AT_THRESHOLD:
        counts = count_at_threshold(matches.classes, threshold)
        own = {
            "precision": counts.detections,
            "recall": counts.ground_truths,
            # It is a share of the boxes in the mean of both: a missed box weighs as much as a false detection.
            "f1": (counts.detections + counts.ground_truths + 1) // 2,
        }[name]
        return make_support([own], matches.units)
    size = name.partition("_")[2]
    classes = matches.sizes[size] if name.startswith("AP_") else matches.classes
    return make_support([own.ground_truth_counts for own in classes], matches.units)


def label_support(matches: DetectionMatches, number: int) -> Support | None:
    """What the figures of one label rest on; None where it has no box."""
    return make_support([matches.classes[number].ground_truth_counts], matches.units)
