"""COCO metrics of a detector on the test pictures, with bootstrap intervals. Matches in, numbers out; no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Floats
from headstart.metrics.bootstrap import Estimate, bootstrap_estimate, resample_weights
from headstart.metrics.coco_matching import IOU_THRESHOLDS, ClassMatches, DetectionMatches
from headstart.metrics.threshold import OperatingPoint, Threshold, operating_point

# In the order of pycocotools' twelve, of which recall by size is left out.
COCO_STATS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR_1", "AR_10", "AR_100")
INTERVAL_STATS = {"AP": slice(None), "AP50": slice(0, 1), "AP75": slice(5, 6)}  # which of the ten IoU thresholds
RECALL_THRESHOLDS = np.linspace(0, 1, 101)  # at which COCO interpolates precision
_EPSILON = np.spacing(1)


@dataclass(frozen=True)
class ClassAP:
    """Average precision of one class: None where it has no ground truth box."""

    ap: float | None
    ap50: float | None
    boxes: int


@dataclass(frozen=True)
class DetectorMetrics:
    """All metrics of one model on the test pictures.

    Attributes:
        pictures: number of test pictures.
        boxes: ground truth boxes in them, without crowds.
        crowds: crowd annotations in them.
        estimates: by the names of COCO_STATS; those of INTERVAL_STATS have an interval.
        threshold: chosen on val.
        at_threshold: precision, recall and F1 at that threshold on test.
        per_class: average precision by label.
    """

    pictures: int
    boxes: int
    crowds: int
    estimates: dict[str, Estimate]
    threshold: Threshold
    at_threshold: OperatingPoint
    per_class: dict[str, ClassAP]


@dataclass(frozen=True)
class DetectorEvaluation:
    """Both models on the same pictures; `difference` is fine-tuned minus head-only, in AP."""

    head_only: DetectorMetrics
    fine_tuned: DetectorMetrics
    difference: Estimate


def evaluate_detectors(
    head_only: tuple[DetectionMatches, Threshold],
    fine_tuned: tuple[DetectionMatches, Threshold],
    names: Sequence[str],
    *,
    crowds: int,
    resamples: int,
    seed: int,
) -> DetectorEvaluation:
    """Metrics of both models and their paired difference in AP, with percentile bootstrap intervals (Efron 1979).

    Both models are evaluated on the same resamples of the test pictures. A class without a box in a resample is left
    out of its mean, as COCO does.

    Args:
        head_only: the model whose head alone was trained: its matches on test, its threshold from val.
        fine_tuned: the same of the fine-tuned model.
        names: labels in the order of the matches' classes.
        crowds: crowd annotations in the test pictures.
        resamples: number of bootstrap resamples.
        seed: of the resamples.
    """
    models = (head_only, fine_tuned)
    samples = _resampled_ap([matches for matches, _ in models], resamples, seed)
    head, tuned = (
        _compute_metrics(matches, threshold, own, names, crowds)
        for (matches, threshold), own in zip(models, samples, strict=True)
    )
    return DetectorEvaluation(head, tuned, _ap_difference(head, tuned, samples[1]["AP"] - samples[0]["AP"]))


def _resampled_ap(models: Sequence[DetectionMatches], resamples: int, seed: int) -> list[dict[str, Floats]]:
    """For each model, metric of INTERVAL_STATS -> its values on the same resamples, (resamples,)."""
    pictures = len(models[0].classes[0].ground_truth_counts)
    width = max(len(matches.score) for model in models for matches in model.classes)
    blocks: list[list[dict[str, Floats]]] = [[] for _ in models]
    for weights in resample_weights(pictures, resamples, seed, width):
        for model, own in zip(models, blocks, strict=True):
            own.append(weighted_ap(model, weights))
    return [{name: np.concatenate([block[name] for block in own]) for name in INTERVAL_STATS} for own in blocks]


def weighted_ap(matches: DetectionMatches, weights: Floats) -> dict[str, Floats]:
    """AP, AP50 and AP75 under each row of weights: pycocotools' for a data set that repeats each picture so often.

    Args:
        matches: of all classes, in n pictures.
        weights: (b, n), how often a resample drew each picture.

    Returns:
        metric of INTERVAL_STATS -> (b,); NaN for a resample without any ground truth box.
    """
    by_class = np.stack([average_precision(own, weights) for own in matches.classes])  # (classes, 10, b)
    defined = ~np.isnan(by_class)
    with np.errstate(invalid="ignore"):
        return {
            name: np.where(defined[:, ious], by_class[:, ious], 0).sum((0, 1)) / defined[:, ious].sum((0, 1))
            for name, ious in INTERVAL_STATS.items()
        }


def average_precision(matches: ClassMatches, weights: Floats) -> Floats:
    """AP of one class at each IoU threshold under each row of weights (b, n): (10, b), NaN without a ground truth."""
    detection_weights = weights[:, matches.image_index]
    ground_truths = weights @ matches.ground_truth_counts
    ap = np.zeros((len(IOU_THRESHOLDS), len(weights)))
    detections_up_to: dict[bytes, Floats] = {}
    for number, (true_positive, ignored) in enumerate(zip(matches.true_positive, matches.ignored, strict=True)):
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
    means = np.zeros(len(true_positives))
    for row in np.flatnonzero(ground_truths):
        # Recall is compared with recall, as pycocotools does: 0.29 * 100 is more than 29.
        reached = np.searchsorted(true_positives[row] / ground_truths[row], RECALL_THRESHOLDS, side="left")
        means[row] = precision[row, reached[reached < true_positives.shape[1]]].sum() / len(RECALL_THRESHOLDS)
    return means


def _compute_metrics(
    matches: DetectionMatches,
    threshold: Threshold,
    samples: Mapping[str, Floats],
    names: Sequence[str],
    crowds: int,
) -> DetectorMetrics:
    boxes = [int(own.ground_truth_counts.sum()) for own in matches.classes]
    precision = matches.precision.mean(axis=1)  # (10, classes)
    return DetectorMetrics(
        pictures=len(matches.classes[0].ground_truth_counts),
        boxes=sum(boxes),
        crowds=crowds,
        estimates=_estimates(matches.stats, samples),
        threshold=threshold,
        at_threshold=operating_point(matches.classes, threshold.value),
        per_class={
            name: ClassAP(float(precision[:, k].mean()), float(precision[0, k]), count)
            if count
            else ClassAP(None, None, 0)
            for k, (name, count) in enumerate(zip(names, boxes, strict=True))
        },
    )


def _estimates(stats: Floats, samples: Mapping[str, Floats]) -> dict[str, Estimate]:
    estimates = {}
    for name, value in zip(COCO_STATS, stats.tolist(), strict=False):
        if value < 0:
            estimates[name] = Estimate(None, absent=_absent_reason(name))
        elif name in samples:
            estimates[name] = bootstrap_estimate(value, samples[name])
        else:
            estimates[name] = Estimate(value)
    return estimates


def _absent_reason(name: str) -> str:
    size = name.partition("_")[2] if name.startswith("AP_") else ""
    return f"no {size} box in the test pictures" if size else "no box in the test pictures"


def _ap_difference(head: DetectorMetrics, tuned: DetectorMetrics, samples: Floats) -> Estimate:
    head_ap, tuned_ap = head.estimates["AP"], tuned.estimates["AP"]
    if head_ap.value is None or tuned_ap.value is None:
        return Estimate(None, absent=tuned_ap.absent)
    return bootstrap_estimate(tuned_ap.value - head_ap.value, samples)
