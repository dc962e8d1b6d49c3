"""Whether one model is better than another on the same test pictures: a paired bootstrap of a metric's difference."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Floats
from headstart.base.detections import Detection
from headstart.base.manifest import Manifest
from headstart.export.saved_predictions import SavedPredictions
from headstart.metrics.bootstrap import Estimate, bootstrap_estimate, resample_weights
from headstart.metrics.calibration import ClassifierPredictions
from headstart.metrics.classification import weighted_metrics

LOWER_IS_BETTER = {"log_loss"}
LEAST_COMMON = 0.5  # of a test set: where fewer pictures are in both models' test sets, they are not compared


@dataclass(frozen=True)
class Comparison:
    """A metric of two models on the same test set; a positive `gain` means that the candidate is better."""

    candidate: float
    baseline: float
    gain: Estimate

    @property
    def is_better(self) -> bool:
        """Whether the whole 95 % interval of the gain lies above 0."""
        return self.gain.low is not None and self.gain.low > 0


def common_test_set(test: Manifest, candidate: SavedPredictions, baseline: SavedPredictions) -> Manifest | None:
    """The pictures that neither model has learned from: those of both test sets, with today's annotations.

    None where they are less than half of the test set, or lack one of its labels.

    Args:
        test: the candidate's test set.
        candidate: predictions of one model for it.
        baseline: predictions of the other for its own test set.
    """
    known = candidate.pictures() & baseline.pictures()
    common = test.subset(image for image in test.images if image.sha256 in known)
    if len(common.images) < LEAST_COMMON * len(test.images) or _labels(common) != _labels(test):
        return None
    return common


def _labels(manifest: Manifest) -> set[object]:
    """The labels of pictures, and the categories of boxes."""
    return {image.label for image in manifest.images} | {box.category_id for box in manifest.annotations}


def compare_predictions(
    test: Manifest, candidate: SavedPredictions, baseline: SavedPredictions, metric: str, resamples: int, seed: int
) -> Comparison:
    """The paired difference of two models.

    The interval is a percentile bootstrap interval (Efron 1979): the test pictures are resampled `resamples` times
    with replacement, and both models are measured on the same resamples, so that hard pictures are hard for both.

    Args:
        test: the pictures to compare on.
        candidate: predictions of one model for them, and maybe others.
        baseline: predictions of the other; the same labels in any order.
        metric: accuracy, balanced_accuracy, roc_auc or log_loss of classifiers; AP, AP50 or AP75 of detectors.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    assert {image.sha256 for image in test.images} <= candidate.pictures() & baseline.pictures(), "two test sets"
    assert set(candidate.labels) == set(baseline.labels), "two sets of labels"
    sign = -1 if metric in LOWER_IS_BETTER else 1
    models = (candidate, baseline)
    candidate_metric, baseline_metric = (_weighted_metric(test, model, metric) for model in models)
    count = len(test.images)
    unweighted = np.ones((1, count))
    candidate_value, baseline_value = candidate_metric(unweighted)[0], baseline_metric(unweighted)[0]
    width = max(sum(map(len, model.boxes.values())) for model in models)
    differences = np.concatenate(
        [
            candidate_metric(weights) - baseline_metric(weights)
            for weights in resample_weights(count, resamples, seed, width)
        ]
    )
    gain = bootstrap_estimate(sign * (candidate_value - baseline_value), sign * differences)
    return Comparison(candidate_value, baseline_value, gain)


def metric_value(test: Manifest, predictions: SavedPredictions, metric: str) -> float:
    """A model's metric on the test set; `metric` as in `compare_predictions`."""
    return float(_weighted_metric(test, predictions, metric)(np.ones((1, len(test.images))))[0])


def _weighted_metric(test: Manifest, predictions: SavedPredictions, metric: str) -> Callable[[Floats], Floats]:
    """A function: weights of the pictures (b, n) -> the metric under each row (b,)."""
    if predictions.probabilities:
        classifier_predictions = _to_classifier_predictions(test, predictions)
        return lambda weights: weighted_metrics(classifier_predictions, weights)[metric]
    from headstart.metrics.coco_matching import match_detections
    from headstart.metrics.detection import weighted_ap

    matches = match_detections(test, _to_detections(test, predictions))
    return lambda weights: weighted_ap(matches, weights)[metric]


def _to_classifier_predictions(test: Manifest, predictions: SavedPredictions) -> ClassifierPredictions:
    probabilities = np.array([predictions.probabilities[image.sha256] for image in test.images])
    labels = np.array([predictions.labels.index(image.label or "") for image in test.images])
    return ClassifierPredictions(labels, probabilities, probabilities, 1.0)


def _to_detections(test: Manifest, predictions: SavedPredictions) -> list[Detection]:
    category_ids = {category.name: category.id for category in test.categories}
    return [
        Detection(
            image_id=image.id,
            category_id=category_ids[predictions.labels[label]],
            bbox=(x, y, width, height),
            score=score,
        )
        for image in test.images
        for label, score, x, y, width, height in predictions.boxes[image.sha256]
    ]
