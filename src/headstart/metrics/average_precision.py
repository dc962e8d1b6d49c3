"""Average precision under many weightings of the pictures at once, as COCO defines it."""

import numpy as np

from headstart.base.arrays import Floats
from headstart.metrics.coco_matching import ClassMatches

AP_ROWS = {"AP": slice(None), "AP50": slice(0, 1), "AP75": slice(5, 6)}  # which of the ten IoU thresholds
RECALL_THRESHOLDS = np.linspace(0, 1, 101)  # at which COCO interpolates precision
_EPSILON = np.spacing(1)


def mean_ap(by_class: Floats) -> Floats:
    """The mean over classes and IoU thresholds, (classes, t, b) -> (b,), without classes that have no box (NaN)."""
    defined = ~np.isnan(by_class)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(defined, by_class, 0).sum((0, 1)) / defined.sum((0, 1)))


def average_precision(matches: ClassMatches, weights: Floats, rows: slice = slice(None)) -> Floats:
    """AP of one class at each of t IoU thresholds under each row of weights (b, n): (t, b), NaN without a box.

    Args:
        matches: of the class.
        weights: how often each picture counts.
        rows: which of the IoU thresholds.
    """
    detection_weights = weights[:, matches.image_index]
    ground_truths = weights @ matches.ground_truth_counts
    ap = np.zeros((len(matches.matched[rows]), len(weights)))
    detections_up_to: dict[bytes, Floats] = {}
    for number, (true_positive, ignored) in enumerate(
        zip(matches.true_positive[rows], matches.ignored[rows], strict=True)
    ):
        # Precision rises at true positives only, so it is computed there alone. The count of detections depends on the
        # IoU threshold only through `ignored`, which is mostly the same.
        if (key := ignored.tobytes()) not in detections_up_to:
            detections_up_to[key] = np.cumsum(detection_weights * ~ignored, axis=1)
        columns = np.flatnonzero(true_positive)
        true_positives = np.cumsum(detection_weights[:, columns], axis=1)
        precision = true_positives / (detections_up_to[key][:, columns] + _EPSILON)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        ap[number] = _mean_precision(true_positives, precision, ground_truths)
    return np.where(ground_truths > 0, ap, np.nan)


def _mean_precision(true_positives: Floats, precision: Floats, ground_truths: Floats) -> Floats:
    """Mean over RECALL_THRESHOLDS of the precision where each is first reached, 0 where it never is, (b,)."""
    # Recall is compared with recall, as pycocotools does: 0.29 * 100 is more than 29.
    recall = true_positives / np.maximum(ground_truths, _EPSILON)[:, None]
    reached = np.searchsorted(RECALL_THRESHOLDS, recall, side="right")
    return np.asarray((precision * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(RECALL_THRESHOLDS))
