"""Metrics of saved predictions under weights of the pictures: what tests and intervals compute many times."""

from collections.abc import Callable

import numpy as np

from headstart.base.arrays import Floats
from headstart.base.detections import Detection
from headstart.base.manifest import Manifest
from headstart.export.saved_predictions import SavedPredictions
from headstart.metrics.average_precision import AP_ROWS, average_precision, mean_ap
from headstart.metrics.calibration import ClassifierPredictions
from headstart.metrics.classification import weighted_metrics
from headstart.metrics.coco_matching import ClassMatches, DetectionMatches, match_detections

Weighted = Callable[[Floats], Floats]  # weights of the pictures (b, n) -> the metric under each row, (b,)


def to_classifier_predictions(test: Manifest, predictions: SavedPredictions) -> ClassifierPredictions:
    """A classifier's saved probabilities for the test pictures; labels are numbered by their name, in every file."""
    order = np.argsort(np.array(predictions.labels), kind="stable")
    labels = [predictions.labels[number] for number in order]
    probabilities = np.array([predictions.probabilities[image.sha256] for image in test.images])[:, order]
    numbers = np.array([labels.index(image.label or "") for image in test.images])
    return ClassifierPredictions(numbers, probabilities, probabilities, 1.0)


def weighted_metric_of_both(
    test: Manifest, first: SavedPredictions, second: SavedPredictions, metric: str
) -> tuple[Weighted, int]:
    """A metric of any mixture of two models' answers for the same n pictures.

    Args:
        test: the pictures.
        first: one model's predictions.
        second: the other's.
        metric: roc_auc of classifiers; AP, AP50 or AP75 of detectors.

    Returns:
        weights (b, 2 n), of the first model's answers and then the second's -> (b,); and how many columns it computes.
    """
    if first.probabilities:
        one, other = (to_classifier_predictions(test, model) for model in (first, second))
        probabilities = np.concatenate([one.raw, other.raw])
        both = ClassifierPredictions(np.concatenate([one.labels] * 2), probabilities, probabilities, 1.0)
        return lambda weights: weighted_metrics(both, weights)[metric], 2 * len(one.labels) * probabilities.shape[1]
    one_model, other_model = (match_test_set(test, model) for model in (first, second))
    classes = [_of_both(*own) for own in zip(one_model.classes, other_model.classes, strict=True)]

    def weighted(weights: Floats) -> Floats:
        return mean_ap(np.stack([average_precision(own, weights, AP_ROWS[metric]) for own in classes]))

    return weighted, max(len(own.score) for own in classes)


def match_test_set(test: Manifest, predictions: SavedPredictions) -> DetectionMatches:
    """A detector's saved boxes matched with the annotations."""
    category_ids = {category.name: category.id for category in test.categories}
    detections = [
        Detection(
            image_id=image.id,
            category_id=category_ids[predictions.labels[label]],
            bbox=(x, y, width, height),
            score=score,
        )
        for image in test.images
        for label, score, x, y, width, height in predictions.boxes[image.sha256]
    ]
    return match_detections(test, detections)


def _of_both(first: ClassMatches, second: ClassMatches) -> ClassMatches:
    """The matches of two models in one data set of 2 n pictures."""
    order = np.argsort(-np.concatenate([first.score, second.score]), kind="mergesort")
    pictures = len(first.ground_truth_counts)

    def joined(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.concatenate([one, other], axis=-1)[..., order]

    return ClassMatches(
        image_index=joined(first.image_index, second.image_index + pictures),
        detection_index=joined(first.detection_index, second.detection_index),
        score=joined(first.score, second.score),
        matched=joined(first.matched, second.matched),
        ignored=joined(first.ignored, second.ignored),
        annotation_id=joined(first.annotation_id, second.annotation_id),
        ground_truth_counts=np.concatenate([first.ground_truth_counts, second.ground_truth_counts]),
    )
