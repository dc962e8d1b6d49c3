"""A classifier's metrics against scikit-learn, torchmetrics and cases worked by hand; their intervals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from headstart.metrics.bootstrap import Estimate, resample_weights
from headstart.metrics.calibration import ClassifierPredictions, SplitLogits, calibrate_logits
from headstart.metrics.classification import ClassMetrics, compute_metrics, evaluate_classifiers, weighted_metrics
from synthetic_logits import NAMES, make_logits

RATES = ("accuracy", "balanced_accuracy", "roc_auc", "ece", "ece_calibrated")
seeds = st.integers(0, 2**31)


def make_predictions(probabilities: list[list[float]], labels: list[int]) -> ClassifierPredictions:
    """Predictions with these very probabilities, before and after a calibration that changes nothing."""
    array = np.array(probabilities, dtype=float)
    return ClassifierPredictions(np.array(labels), array, array, 1.0)


# --- point estimates ---


def test_metrics_of_a_case_worked_by_hand() -> None:
    found = compute_metrics(
        make_predictions([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]], [0, 1, 1, 0]), NAMES[2], 100, 0
    )
    assert found.accuracy.value == 0.5
    assert found.balanced_accuracy.value == 0.5
    # Pairs (cracked, whole): 0.4 > 0.1, 0.4 < 0.8, 0.7 > 0.1, 0.7 < 0.8.
    assert found.roc_auc.value == 0.5
    assert found.log_loss.value == pytest.approx(-np.log([0.9, 0.4, 0.7, 0.2]).mean())
    # Each picture alone in its bin: the gaps are 0.1, 0.6, 0.3 and 0.8.
    assert found.ece.value == pytest.approx(0.45)
    whole, cracked = (found.per_class[name] for name in NAMES[2])
    assert (whole.precision, whole.recall, whole.f1, whole.support) == (0.5, 0.5, 0.5, 2)
    assert cracked.support == 2


@pytest.mark.parametrize("classes", [2, 5])
def test_metrics_are_those_of_torchmetrics(classes: int) -> None:
    import torch
    from torchmetrics import classification as reference

    logits = make_logits(300, classes, seed=1)
    found = compute_metrics(calibrate_logits(logits), NAMES[classes], 100, 0)
    probabilities = torch.softmax(torch.from_numpy(logits.test), dim=1)
    labels = torch.from_numpy(logits.test_labels)
    ece = reference.MulticlassCalibrationError(classes, n_bins=15, norm="l1")
    accuracy = reference.MulticlassAccuracy(classes, average="micro")
    balanced = reference.MulticlassAccuracy(classes, average="macro")
    auc = reference.MulticlassAUROC(classes, average="macro")
    assert found.ece.value == pytest.approx(float(ece(probabilities, labels)), abs=1e-6)
    assert found.accuracy.value == pytest.approx(float(accuracy(probabilities, labels)), abs=1e-6)
    assert found.balanced_accuracy.value == pytest.approx(float(balanced(probabilities, labels)), abs=1e-6)
    assert found.roc_auc.value == pytest.approx(float(auc(probabilities, labels)), abs=1e-6)


def test_a_class_without_test_pictures_has_no_roc_auc_and_no_recall() -> None:
    found = compute_metrics(
        make_predictions([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]], [0, 1, 1]), NAMES[3], 100, 0
    )
    assert found.roc_auc == Estimate(None, absent="no test picture of chipped")
    assert found.balanced_accuracy.value == 0.75
    assert found.per_class["chipped"] == ClassMetrics(precision=0.0, recall=None, f1=0.0, support=0)


def test_many_classes_without_test_pictures_are_not_all_named() -> None:
    found = compute_metrics(calibrate_logits(make_logits(2, 30, seed=0)), NAMES[30], 100, 0)
    assert found.roc_auc.absent == "no test picture of whole, cracked, chipped and 25 more"


def test_a_class_that_is_never_predicted_has_no_precision() -> None:
    found = compute_metrics(make_predictions([[0.8, 0.2], [0.7, 0.3], [0.9, 0.1]], [0, 1, 1]), NAMES[2], 100, 0)
    assert found.per_class["cracked"] == ClassMetrics(precision=None, recall=0.0, f1=0.0, support=2)
    assert found.balanced_accuracy.value == 0.5


def test_one_test_picture() -> None:
    found = compute_metrics(make_predictions([[0.8, 0.2]], [0]), NAMES[2], 100, 0)
    assert found.accuracy == Estimate(1.0, 1.0, 1.0)
    assert found.roc_auc.absent == "no test picture of cracked"


# --- intervals ---


@pytest.mark.parametrize("classes", [2, 4])
def test_weighted_metrics_are_scikit_learns_on_the_resample_itself(classes: int) -> None:
    """On ties, and on resamples that miss a class, too."""
    found = calibrate_logits(make_logits(40, classes, seed=5))
    found = ClassifierPredictions(found.labels, found.raw.round(1) + 1e-3, found.calibrated, found.temperature)  # ties
    found = ClassifierPredictions(found.labels, found.raw / found.raw.sum(axis=1, keepdims=True), found.calibrated, 1.0)
    weights = np.concatenate(list(resample_weights(40, 30, seed=0)))
    weighted = weighted_metrics(found, weights)
    for row, weight in enumerate(weights):
        resample = np.repeat(np.arange(40), weight.astype(int))
        labels, predicted, raw = found.labels[resample], found.predicted[resample], found.raw[resample]
        present = np.unique(labels)
        assert weighted["accuracy"][row] == pytest.approx(metrics.accuracy_score(labels, predicted))
        recall = metrics.recall_score(labels, predicted, labels=present, average="macro")
        assert weighted["balanced_accuracy"][row] == pytest.approx(recall)
        loss = metrics.log_loss(labels, raw, labels=np.arange(classes))
        assert weighted["log_loss"][row] == pytest.approx(loss)
        positive = [1] if classes == 2 else present
        areas = [metrics.roc_auc_score(labels == c, raw[:, c]) for c in positive]
        assert weighted["roc_auc"][row] == pytest.approx(np.mean(areas))


def test_paired_difference_of_one_model_with_itself_is_zero() -> None:
    found = calibrate_logits(make_logits(50, 3, seed=7))
    assert evaluate_classifiers(found, found, NAMES[3], 100, 0).difference == Estimate(0.0, 0.0, 0.0)


def test_the_paired_difference_is_narrower_than_two_intervals() -> None:
    """Two models that differ on 5 of 200 pictures differ by little, for certain."""
    labels = np.zeros(200, dtype=int)
    right, wrong = [0.9, 0.1], [0.1, 0.9]
    head = make_predictions([wrong] * 45 + [right] * 155, labels.tolist())
    tuned = make_predictions([wrong] * 40 + [right] * 160, labels.tolist())
    difference = evaluate_classifiers(head, tuned, NAMES[2], 1000, 0).difference
    assert difference.value == pytest.approx(0.025)
    assert difference.low == pytest.approx(0.005, abs=0.006)
    assert difference.high == pytest.approx(0.0475, abs=0.006)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, pictures=st.integers(1, 60), classes=st.integers(2, 6), scale=st.floats(0.01, 100))
def test_intervals_contain_their_metric_and_lie_in_range(seed: int, pictures: int, classes: int, scale: float) -> None:
    found = compute_metrics(calibrate_logits(make_logits(pictures, classes, seed, scale)), NAMES[classes], 100, 0)
    for name, estimate in found.estimates().items():
        if estimate.value is None:
            assert estimate.absent
            continue
        assert estimate.low is not None
        assert estimate.high is not None
        assert 0 <= estimate.low <= estimate.value <= estimate.high
        assert name not in RATES or estimate.high <= 1 + 1e-12


@settings(max_examples=25, deadline=None)
@given(seed=seeds, classes=st.integers(2, 5))
def test_the_order_of_pictures_changes_no_point_estimate(seed: int, classes: int) -> None:
    logits = make_logits(40, classes, seed)
    order = np.random.default_rng(seed).permutation(40)
    shuffled = SplitLogits(logits.val, logits.val_labels, logits.test[order], logits.test_labels[order])
    one, other = (compute_metrics(calibrate_logits(x), NAMES[classes], 100, 0) for x in (logits, shuffled))
    for name, estimate in one.estimates().items():
        assert other.estimates()[name].value == (None if estimate.value is None else pytest.approx(estimate.value))
    assert one.per_class == other.per_class
