"""The confidence threshold of a detector: the one of highest F1 on val, and precision and recall at a threshold."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Bools, Floats
from headstart.metrics.coco_matching import ClassMatches

FALLBACK_THRESHOLD = 0.5  # where no val picture has a box, or no detection is right


@dataclass(frozen=True)
class OperatingPoint:
    """Micro-averaged metrics at one threshold and IoU 0.5: None without a detection, or without a ground truth box."""

    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Threshold:
    """The score from which a detection counts; `f1` is what it gives on val, None where val has no box."""

    value: float
    f1: float | None


@dataclass(frozen=True)
class ThresholdSweep:
    """Precision, recall and F1 for every threshold at which they change, by falling threshold, (s,)."""

    confidence: Floats
    precision: Floats
    recall: Floats
    f1: Floats


@dataclass(frozen=True)
class _PooledMatches:
    """The detections of all classes and pictures together (micro average) at IoU 0.5."""

    score: Floats
    true_positive: Bools
    counted: Bools  # not ignored
    ground_truths: int


def sweep_thresholds(classes: Sequence[ClassMatches]) -> ThresholdSweep:
    """Micro-averaged metrics at every threshold, at IoU 0.5. Empty without a detection or a ground truth box."""
    pooled = _pool(classes)
    order = np.argsort(-pooled.score, kind="stable")
    score = pooled.score[order]
    true_positives, detections = np.cumsum(pooled.true_positive[order]), np.cumsum(pooled.counted[order])
    # Detections of equal score pass a threshold together: the last of them has the counts.
    last = np.append(score[1:] < score[:-1], True)[: len(score)] & (detections > 0) & (pooled.ground_truths > 0)
    score, true_positives, detections = score[last], true_positives[last], detections[last]
    return ThresholdSweep(
        score,
        true_positives / detections,
        true_positives / max(pooled.ground_truths, 1),
        2 * true_positives / (detections + pooled.ground_truths),
    )


def choose_threshold(classes: Sequence[ClassMatches]) -> Threshold:
    """The threshold of the highest F1 at IoU 0.5 over all val pictures; the highest of several that are equal.

    It lies half way to the next lower score, so that rounding does not lose the detection that decided.
    """
    sweep = sweep_thresholds(classes)
    if not len(sweep.f1):
        return Threshold(FALLBACK_THRESHOLD, 0.0 if _pool(classes).ground_truths else None)
    best = int(sweep.f1.argmax())
    if sweep.f1[best] == 0:
        return Threshold(FALLBACK_THRESHOLD, 0.0)
    below = sweep.confidence[best + 1] if best + 1 < len(sweep.confidence) else 0.0
    return Threshold(round(float(sweep.confidence[best] + below) / 2, 6), float(sweep.f1[best]))


def operating_point(classes: Sequence[ClassMatches], threshold: float) -> OperatingPoint:
    """Precision, recall and F1 of the detections at or above a threshold."""
    pooled = _pool(classes)
    above = pooled.score >= threshold
    true_positives, detections = int((pooled.true_positive & above).sum()), int((pooled.counted & above).sum())
    ground_truths = pooled.ground_truths
    return OperatingPoint(
        true_positives / detections if detections else None,
        true_positives / ground_truths if ground_truths else None,
        2 * true_positives / (detections + ground_truths) if detections + ground_truths else None,
    )


def _pool(classes: Sequence[ClassMatches]) -> _PooledMatches:
    return _PooledMatches(
        score=np.concatenate([matches.score for matches in classes]),
        true_positive=np.concatenate([matches.true_positive[0] for matches in classes]),
        counted=np.concatenate([~matches.ignored[0] for matches in classes]),
        ground_truths=sum(int(matches.ground_truth_counts.sum()) for matches in classes),
    )
