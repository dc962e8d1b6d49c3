"""Which of two models is better: metrics against scikit-learn and pycocotools, and the paired interval."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn import metrics

import synthetic_boxes
from headstart.base.manifest import Image, Manifest, make_categories
from headstart.export.comparison import common_test_set, common_units, compare_predictions
from headstart.export.model_prediction import DetectedBox, ModelPrediction
from headstart.export.saved_predictions import SavedPredictions, ScoredBoxRow, collect_predictions
from headstart.export.weighted_metric import match_test_set
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
        comparison = compare_predictions(test, good, poor, metric, 0.05, 0)
        assert comparison.candidate == pytest.approx(value, abs=1e-5), metric
        difference = abs(comparison.candidate - comparison.baseline)
        assert comparison.gain == pytest.approx(difference), "a lower loss is better too"
        assert comparison.is_better(0.001)
        worse = compare_predictions(test, poor, good, metric, 0.05, 0)
        assert not worse.is_better(1)
        assert worse.is_worse(0.001)
        assert worse.test.p == pytest.approx(comparison.test.p, abs=1e-4)


def wrong_on(test: Manifest, numbers: Sequence[int]) -> SavedPredictions:
    """Certain of the label on every picture, but on these of another one."""
    probabilities = {image.sha256: one_hot(LABELS[(n % 3 + (n in numbers)) % 3]) for n, image in enumerate(test.images)}
    return SavedPredictions(test_set="a", labels=tuple(LABELS), probabilities=probabilities)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "roc_auc", "log_loss"])
def test_four_to_none_is_no_better(metric: str) -> None:
    """Both wrong on the same 30 pictures, one of them on 4 or 8 more."""
    test = make_test()
    candidate = wrong_on(test, range(30))
    for more, p in ((4, 0.125), (8, 1 / 128)):
        comparison = compare_predictions(test, candidate, wrong_on(test, range(30 + more)), metric, 0.05, 0)
        assert comparison.gain > 0
        assert comparison.test.p == pytest.approx(p)
        assert comparison.is_better(0.05) == (more == 8)
        if metric == "accuracy":
            assert (comparison.counts, comparison.test.method) == ((more, 0), "McNemar's exact test")
            assert comparison.gain == pytest.approx(more / 60)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "roc_auc", "log_loss"])
@pytest.mark.parametrize("where", ["manifest", "file"])
def test_pictures_of_a_unit_are_one_observation(metric: str, where: str) -> None:
    """8 to 0, and the eight are of three units: 3 to 0."""
    test = make_test()
    candidate, baseline = wrong_on(test, range(30)), wrong_on(test, range(38))
    units = {image.sha256: f"unit {n // 4}" for n, image in enumerate(test.images) if 30 <= n + 2 < 40}
    if where == "manifest":
        images = [image.model_copy(update={"unit": units.get(image.sha256)}) for image in test.images]
        test = test.model_copy(update={"images": tuple(images)})
    else:
        baseline = baseline.model_copy(update={"units": units})
    assert len(np.unique(common_units(test.images, candidate, baseline))) == 60 - 10 + 3
    # The units of 28 to 31 (of which both models have 28 and 29 wrong), 32 to 35, 36 and 37.
    comparison = compare_predictions(test, candidate, baseline, metric, 0.05, 0)
    assert comparison.test.p == pytest.approx(0.25)
    assert comparison.counts in (None, (8, 0))


def test_units_of_either_file_are_joined() -> None:
    test = make_test(6)
    keys = [image.sha256 for image in test.images]
    one = wrong_on(test, ()).model_copy(update={"units": {keys[0]: "a", keys[1]: "a", keys[4]: "b"}})
    other = wrong_on(test, ()).model_copy(update={"units": {keys[1]: "x", keys[2]: "x", keys[4]: "y", keys[5]: "y"}})
    numbers = common_units(test.images, one, other).tolist()
    assert numbers[0] == numbers[1] == numbers[2]
    assert numbers[4] == numbers[5]
    assert len(set(numbers)) == 3


def test_a_model_is_not_better_than_itself() -> None:
    test = make_test()
    model = random_predictions(test, 1, 0.3)
    for metric in CHAMPION_METRICS["classify"]:
        comparison = compare_predictions(test, model, model, metric, 0.05, 0)
        assert (comparison.gain, comparison.test.p, comparison.is_better(1)) == (0, 1, False)


def one_hot(name: str) -> tuple[float, ...]:
    return tuple(float(label == name) for label in LABELS)


def test_labels_in_another_order_are_the_same_predictions() -> None:
    test = make_test()
    predictions = random_predictions(test, 1, 0.3)
    reversed_labels = SavedPredictions(
        test_set=predictions.test_set,
        labels=predictions.labels[::-1],
        probabilities={key: row[::-1] for key, row in predictions.probabilities.items()},
    )
    for metric in CHAMPION_METRICS["classify"]:
        comparison = compare_predictions(test, predictions, reversed_labels, metric, 0.05, 0)
        assert (comparison.candidate, comparison.gain, comparison.test.p) == (comparison.baseline, 0, 1)


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
        comparison = compare_predictions(test, good, none, name, 0.05, 0)
        assert comparison.candidate == pytest.approx(value)
        assert comparison.baseline == 0
        assert comparison.test.p < 0.001
        assert comparison.is_better(0.001)
        assert compare_predictions(test, none, good, name, 0.05, 0).is_worse(0.001)
        assert compare_predictions(test, good, good, name, 0.05, 0).test.p == 1


def test_a_detectors_test_is_that_of_all_exchanges_of_pictures() -> None:
    """AP50 of every mixture of two models on six pictures, by pycocotools itself."""
    test = synthetic_boxes.random_boxes(5, 6)
    labels = test.labels()

    def boxes_of(moved: Sequence[int]) -> SavedPredictions:
        rows: dict[int, list[DetectedBox]] = {image.id: [] for image in test.images}
        for number, annotation in enumerate(test.annotations):
            x, y, width, height = annotation.bbox
            x += width if annotation.image_id in moved else 0
            box = DetectedBox(labels[annotation.category_id - 1], 0.9 - number / 100, (x, y, x + width, y + height))
            rows[annotation.image_id].append(box)
        return collect_predictions(test, labels, [ModelPrediction({}, tuple(rows[i.id])) for i in test.images])

    ids = [image.id for image in test.images]
    good, poor = boxes_of(ids[:1]), boxes_of(ids[2:])

    def ap50(rows: dict[str, tuple[ScoredBoxRow, ...]]) -> float:
        return float(match_test_set(test, good.model_copy(update={"boxes": rows})).stats[1])  # pycocotools'

    differences = []
    for swaps in itertools.product((False, True), repeat=6):
        keys = {image.sha256: swap for image, swap in zip(test.images, swaps, strict=True)}
        mixed = {key: (poor if swap else good).boxes[key] for key, swap in keys.items()}
        rest = {key: (good if swap else poor).boxes[key] for key, swap in keys.items()}
        differences.append(ap50(mixed) - ap50(rest))
    expected = float(np.mean([abs(value) >= abs(differences[0]) - 1e-9 for value in differences]))
    comparison = compare_predictions(test, good, poor, "AP50", 0.05, 0)
    assert comparison.gain == pytest.approx(differences[0])
    assert (comparison.test.p, comparison.test.method) == (expected, "exact permutation test over units")


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
