"""Which of two models is better: metrics against scikit-learn and pycocotools, and the paired interval."""

import numpy as np
import pytest
from sklearn import metrics

import synthetic_boxes
from headstart.base.manifest import Image, Manifest, make_categories
from headstart.export.comparison import common_test_set, compare_predictions
from headstart.export.predictor import DetectedBox, ModelPrediction
from headstart.export.saved_predictions import SavedPredictions, collect_predictions
from headstart.metrics.coco_matching import match_detections
from headstart.params.root import CHAMPION_METRICS

LABELS = ["blue", "green", "red"]


def make_test(count: int = 60) -> Manifest:
    images = tuple(
        Image(id=n, file_name=f"{n}.png", width=100, height=50, sha256=f"{n:064x}", source="", label=LABELS[n % 3])
        for n in range(count)
    )
    return Manifest(images=images, categories=make_categories(LABELS))


def random_predictions(test: Manifest, seed: int, skill: float) -> SavedPredictions:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(3), len(test.images))
    for row, image in zip(probabilities, test.images, strict=True):
        row[LABELS.index(image.label or "")] += skill
    probabilities /= probabilities.sum(1, keepdims=True)
    predictions = [ModelPrediction(dict(zip(LABELS, map(float, row), strict=True))) for row in probabilities]
    return collect_predictions(test, LABELS, predictions)


def test_a_classifiers_metrics_are_those_of_scikit_learn() -> None:
    test = make_test()
    good, poor = random_predictions(test, 1, 0.8), random_predictions(test, 2, 0.0)
    labels = [LABELS.index(image.label or "") for image in test.images]
    probabilities = np.array([good.probabilities[image.sha256] for image in test.images])
    normalized = probabilities / probabilities.sum(1, keepdims=True)
    expected = {
        "accuracy": metrics.accuracy_score(labels, probabilities.argmax(axis=1)),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, probabilities.argmax(axis=1)),
        "roc_auc": metrics.roc_auc_score(labels, normalized, multi_class="ovr"),
        "log_loss": metrics.log_loss(labels, normalized),
    }
    assert set(expected) == set(CHAMPION_METRICS["classify"])
    for metric, value in expected.items():
        comparison = compare_predictions(test, good, poor, metric, 200, 0)
        assert comparison.candidate == pytest.approx(value, abs=1e-5), metric
        difference = abs(comparison.candidate - comparison.baseline)
        assert comparison.gain.value == pytest.approx(difference), "a lower loss is better too"
        assert comparison.is_better
        assert not compare_predictions(test, poor, good, metric, 200, 0).is_better


def test_the_interval_is_of_the_paired_difference() -> None:
    """Both wrong on the same 30 pictures, one of them on 6 more: by the sign test (6 of 6) no chance, p = 0.03."""
    test = make_test()

    def wrong_on(count: int) -> SavedPredictions:
        probabilities = {
            image.sha256: (1.0, 0.0, 0.0) if n < count else one_hot(image) for n, image in enumerate(test.images)
        }
        return SavedPredictions(test_set="a", labels=tuple(LABELS), probabilities=probabilities)

    candidate, baseline = wrong_on(30), wrong_on(36)
    comparison = compare_predictions(test, candidate, baseline, "accuracy", 2000, 0)
    assert comparison.gain.value == pytest.approx(4 / 60), "of the six, two are blue"
    assert comparison.is_better
    assert comparison.gain.high == pytest.approx(4 / 60 + 1.96 * np.sqrt(4 / 60 * 56 / 60 / 60), abs=0.02)
    with_itself = compare_predictions(test, candidate, candidate, "accuracy", 200, 0)
    gain = with_itself.gain
    assert (gain.low, gain.value, gain.high, with_itself.is_better) == (0, 0, 0, False)


def one_hot(image: Image) -> tuple[float, ...]:
    return tuple(float(label == image.label) for label in LABELS)


def test_labels_in_another_order_are_the_same_predictions() -> None:
    test = make_test()
    predictions = random_predictions(test, 1, 0.3)
    reversed_labels = SavedPredictions(
        test_set=predictions.test_set,
        labels=predictions.labels[::-1],
        probabilities={key: row[::-1] for key, row in predictions.probabilities.items()},
    )
    comparison = compare_predictions(test, predictions, reversed_labels, "accuracy", 100, 0)
    assert (comparison.candidate, comparison.gain.low, comparison.gain.high) == (comparison.baseline, 0, 0)


def test_a_detectors_metrics_are_those_of_pycocotools() -> None:
    test = synthetic_boxes.random_boxes(3, 20)
    labels = test.labels()
    boxes: dict[int, list[DetectedBox]] = {image.id: [] for image in test.images}
    for number, annotation in enumerate(test.annotations):
        x, y, width, height = annotation.bbox
        corners = (x + number % 5, y, x + width + number % 5, y + height)  # not all of them fit closely
        boxes[annotation.image_id].append(DetectedBox(labels[annotation.category_id - 1], 0.9 - number / 100, corners))
    good = collect_predictions(test, labels, [ModelPrediction({}, tuple(boxes[image.id])) for image in test.images])
    none = collect_predictions(test, labels, [ModelPrediction({}, ()) for _ in test.images])
    rows = [
        (image.id, labels[label], (x, y, width, height), score)
        for image in test.images
        for label, score, x, y, width, height in good.boxes[image.sha256]
    ]
    stats = match_detections(test, synthetic_boxes.make_detections(*rows)).stats
    for name, value in zip(("AP", "AP50", "AP75"), stats, strict=False):
        comparison = compare_predictions(test, good, none, name, 100, 0)
        assert comparison.candidate == pytest.approx(value)
        assert (comparison.baseline, comparison.is_better) == (0, True)


def test_the_common_test_set_is_what_neither_model_has_learned_from() -> None:
    test = make_test()
    whole = random_predictions(test, 1, 0.3)

    def without(*left_out: int) -> SavedPredictions:
        kept = [image.sha256 for number, image in enumerate(test.images) if number not in left_out]
        return whole.model_copy(update={"probabilities": {sha256: whole.probabilities[sha256] for sha256 in kept}})

    common = common_test_set(test, whole, without(0, 7))
    assert common is not None
    assert common.images == tuple(image for number, image in enumerate(test.images) if number not in (0, 7))
    assert common_test_set(test, whole, without(*range(31))) is None, "less than half"
    of_one_label = [number for number, image in enumerate(test.images) if image.label == LABELS[0]]
    assert common_test_set(test, whole, without(*of_one_label)) is None, "a label has none"
