"""What 8 bits change: the quantized file's own answers and figures, and the difference from the fp32 model's."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.base.arrays import Floats, Ints
from headstart.base.errors import UserError
from headstart.base.manifest import Manifest
from headstart.base.units import unit_numbers
from headstart.export.predictor import ClassifierOutput, DetectorOutput
from headstart.export.saved_predictions import SavedPredictions
from headstart.export.weighted_metric import match_test_set
from headstart.metrics.calibration import ClassifierPredictions
from headstart.metrics.classification import compute_metrics
from headstart.metrics.conformal import PredictionSets
from headstart.metrics.detection import ap_difference, ap_interval
from headstart.metrics.estimate import METRIC_DIGITS, Estimate, estimate_json
from headstart.metrics.intervals import difference_interval, mean_interval, real_mean_interval

MOST_PICTURES = 20_000  # beyond which no number of test pictures is proposed
SAME_PLACE = 0.5  # IoU from which two boxes of one label count as the same


@dataclass(frozen=True)
class ModelAnswers:
    """What a model says of the test pictures: as it gives it, and as it is saved."""

    outputs: ClassifierOutput | DetectorOutput
    saved: SavedPredictions


@dataclass(frozen=True)
class Change:
    """What int8 changed.

    Attributes:
        parity: of the quantized file's answers with the fp32 model's, for parity.json.
        figures: of the quantized file, and the differences, int8 minus fp32, for parity.json.
        metric: the fp32 model's and the int8 model's.
        difference: of the metric that limits it, int8 minus fp32, as if there were so many times as many test pictures.
    """

    parity: Mapping[str, Any]
    figures: Mapping[str, Any]
    metric: tuple[float, float]
    difference: Callable[[int], Estimate]


def measure_change(
    test: Manifest, fp32: ModelAnswers, int8: ModelAnswers, labels: Mapping[str, Any], metric: str
) -> Change:
    """The change of a model of either kind.

    Args:
        test: the test set.
        fp32: answers of the model before quantization, which are the PyTorch model's within `export.tolerance`.
        int8: of the quantized model.
        labels: labels.json.
        metric: accuracy, or AP, AP50 or AP75.
    """
    if isinstance(fp32.outputs, DetectorOutput):
        return detector_change(test, fp32, int8, metric, labels["threshold"])
    assert isinstance(int8.outputs, ClassifierOutput)
    thresholds = labels["prediction_sets"]["thresholds"]
    return classifier_change(test, labels["labels"], fp32.outputs, int8.outputs, labels["temperature"], thresholds)


def classifier_change(
    test: Manifest,
    names: Sequence[str],
    fp32: ClassifierOutput,
    int8: ClassifierOutput,
    temperature: float,
    thresholds: Sequence[float] | None = None,
) -> Change:
    """Both classifiers' answers compared, picture by picture.

    `names` are the labels' in the order of the outputs, `temperature` is the calibration's. `thresholds` are those of
    the prediction sets by label; None: there are no sets.
    """
    units = unit_numbers(test.images)
    labels = np.array([names.index(image.label or "") for image in test.images])
    before, after = (_predictions(outputs, labels, units, temperature) for outputs in (fp32, int8))
    gains = after.correct - before.correct
    step = int(units.max()) + 1

    def difference(times: int) -> Estimate:
        repeated = np.concatenate([units + step * number for number in range(times)])
        return difference_interval(np.tile(gains, times), repeated)

    parity = {
        "pictures": len(labels),
        "largest_logit_difference": _largest(int8.logits, fp32.logits),
        "largest_probability_difference": _largest(int8.probabilities, fp32.probabilities),
        "largest_strangeness_difference": _largest(int8.strangeness, fp32.strangeness),
        "same_label": int((int8.logits.argmax(1) == fp32.logits.argmax(1)).sum()),
    }
    figures = _classifier_figures(names, before, after)
    if thresholds is not None:
        figures |= _set_coverage(np.array(thresholds), before, after)
    return Change(parity, figures, (float(before.correct.mean()), float(after.correct.mean())), difference)


def _classifier_figures(
    names: Sequence[str], before: ClassifierPredictions, after: ClassifierPredictions
) -> dict[str, Any]:
    """The int8 model's own figures, the fp32 model's beside them, and the paired differences."""
    was, own = (compute_metrics(predictions, names, seed=0) for predictions in (before, after))
    assert was.accuracy.value is not None
    assert was.log_loss.value is not None
    return {
        **estimate_json("accuracy", own.accuracy),
        **estimate_json("log_loss", own.log_loss),
        **estimate_json("brier_score", own.brier_score),
        "ece_calibrated": round(own.ece_calibrated.value, METRIC_DIGITS),
        "ece_perfect_low": round(own.ece_calibrated.perfect_low, METRIC_DIGITS),
        "ece_perfect_high": round(own.ece_calibrated.perfect_high, METRIC_DIGITS),
        "accuracy_fp32": round(was.accuracy.value, METRIC_DIGITS),
        "log_loss_fp32": round(was.log_loss.value, METRIC_DIGITS),
        "difference": {
            **estimate_json("accuracy", difference_interval(after.correct - before.correct, after.units)),
            **estimate_json("log_loss", real_mean_interval(after.losses - before.losses, after.units)),
        },
    }


def _set_coverage(thresholds: Floats, before: ClassifierPredictions, after: ClassifierPredictions) -> dict[str, Any]:
    """Share of the prediction sets that hold the right label, at the thresholds of the fp32 model."""
    sets, every = PredictionSets(0.0, thresholds), np.arange(len(after.labels))
    was, held = (sets.contain(one.calibrated)[every, one.labels].astype(np.float64) for one in (before, after))
    own = estimate_json("coverage", mean_interval(held, after.units))
    return {**own, "coverage_fp32": round(float(was.mean()), METRIC_DIGITS)}


def _predictions(outputs: ClassifierOutput, labels: Ints, units: Ints, temperature: float) -> ClassifierPredictions:
    from scipy.special import softmax

    raw = softmax(outputs.logits.astype(np.float64), axis=1)
    return ClassifierPredictions(labels, raw, outputs.probabilities.astype(np.float64), temperature, units)


def _largest(one: Any, other: Any) -> float:
    return float(f"{float(np.abs(one - other).max()):.3g}")


def detector_change(test: Manifest, fp32: ModelAnswers, int8: ModelAnswers, metric: str, threshold: float) -> Change:
    """Both detectors' boxes compared; of those with scores below the threshold only in the metric."""
    assert isinstance(fp32.outputs, DetectorOutput)
    assert isinstance(int8.outputs, DetectorOutput)
    before, after = (match_test_set(test, model.saved) for model in (fp32, int8))
    change, own, was = ap_difference(before, after, metric), ap_interval(after, metric), ap_interval(before, metric)
    if change.value is None or own.value is None or was.value is None:  # no box in the test pictures
        raise UserError(f"params.yaml: export.quantize: int8: its cost is unknown: {change.absent}; give none")

    def difference(times: int) -> Estimate:
        assert change.value is not None
        if change.low is None or change.high is None:
            return change
        low, high = (change.value + (end - change.value) / math.sqrt(times) for end in (change.low, change.high))
        return Estimate(change.value, low, high)

    found, compared, score = _same_boxes(fp32.outputs, int8.outputs, threshold)
    return Change(
        parity={
            "pictures": len(test.images),
            "boxes": compared,
            "same_box": found,
            "largest_score_difference": float(f"{score:.3g}"),
        },
        figures={
            **estimate_json(metric, own),
            f"{metric}_fp32": round(was.value, METRIC_DIGITS),
            "difference": estimate_json(metric, change),
        },
        metric=(was.value, own.value),
        difference=difference,
    )


def _same_boxes(fp32: DetectorOutput, int8: DetectorOutput, threshold: float) -> tuple[int, int, float]:
    """Boxes of either model above the threshold that the other has too, all such boxes, largest score difference."""
    found, compared, largest = 0, 0, 0.0
    for one, other in ((fp32, int8), (int8, fp32)):
        for picture, position in np.argwhere(one.scores >= threshold):
            rivals = (other.labels[picture] == one.labels[picture, position]) & (other.scores[picture] >= threshold)
            overlaps = _iou(one.boxes[picture, position], other.boxes[picture][rivals])
            compared += 1
            if len(overlaps) and overlaps.max() >= SAME_PLACE:
                found += 1
                score = other.scores[picture][rivals][overlaps.argmax()]
                largest = max(largest, abs(float(score - one.scores[picture, position])))
    return found, compared, largest


def _iou(box: Floats, others: Floats) -> Floats:
    """IoU of one box, (4,), with others, (k, 4), as corners -> (k,)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return np.asarray(shared / np.maximum(areas - shared, 1e-9))


def refusal(change: Change, metric: str, max_drop: float, pictures: int) -> str:
    """Why the quantized model is not left: the drop may be larger than `max_drop`; empty where it is not.

    Args:
        change: what int8 changed.
        metric: its name.
        max_drop: by which the metric may fall, at the worst end of the interval of the difference.
        pictures: in the test set.
    """
    found = change.difference(1)
    # Without an interval the two are the same model on these pictures, to every score; NaN is no small drop.
    if found.low is None or found.high is None or -found.low <= max_drop:
        return ""
    before, after = change.metric
    passing = f"give max_drop: {math.ceil(-found.low * 100) / 100:g}"
    if needed := _pictures_needed(change, max_drop, pictures):
        passing += f", or about {needed:,} test pictures"
    return (
        f"params.yaml: export.max_drop: {max_drop:g}: int8 may cost up to {-found.low:.4f} of test {metric} "
        f"({before:.4f} to {after:.4f}; 95 % interval of the difference {found.low:.4f} to {found.high:.4f}, on "
        f"{pictures:,} test pictures); {passing}, or export.quantize: none"
    )


def _pictures_needed(change: Change, max_drop: float, pictures: int) -> int:
    """So many test pictures of the same kind would show that the drop is within its limit; 0: none would."""
    for times in range(2, max(2, MOST_PICTURES // pictures) + 1):
        low = change.difference(times).low
        if low is not None and -low <= max_drop:
            return int(float(f"{pictures * times:.2g}"))
    return 0
