"""A classifier's metrics against scikit-learn, torchmetrics and cases worked by hand; their intervals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from headstart.metrics.calibration import ClassifierPredictions, SplitLogits, calibrate_logits
from headstart.metrics.classification import compute_metrics, evaluate_classifiers, weighted_metrics
from headstart.metrics.estimate import Estimate
from headstart.metrics.intervals import SAME_MODEL, difference_interval, mean_interval
from headstart.metrics.label_shares import ClassMetrics
from synthetic_logits import NAMES, make_logits

RATES = ("accuracy", "balanced_accuracy", "roc_auc")
seeds = st.integers(0, 2**31)


def make_predictions(probabilities: list[list[float]], labels: list[int]) -> ClassifierPredictions:
    """Predictions with these very probabilities, before and after a calibration that changes nothing."""
    array = np.array(probabilities, dtype=float)
    return ClassifierPredictions(np.array(labels), array, array, 1.0)


def values_of(of: ClassMetrics) -> tuple[float | None, float | None, float | None, int]:
    return of.precision.value, of.recall.value, of.f1.value, of.support


# --- point estimates ---


def test_metrics_of_a_case_worked_by_hand() -> None:
    found = compute_metrics(
        make_predictions([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]], [0, 1, 1, 0]), NAMES[2], 0
    )
    assert found.accuracy.value == 0.5
    assert found.balanced_accuracy.value == 0.5
    # Pairs (cracked, whole): 0.4 > 0.1, 0.4 < 0.8, 0.7 > 0.1, 0.7 < 0.8.
    assert found.roc_auc.value == 0.5
    assert found.log_loss.value == pytest.approx(-np.log([0.9, 0.4, 0.7, 0.2]).mean())
    # Each picture alone in its bin: the gaps are 0.1, 0.6, 0.3 and 0.8.
    assert found.ece.value == pytest.approx(0.45)
    # (0.1, 0.6, 0.3, 0.8) squared.
    assert found.brier_score.value == pytest.approx((0.01 + 0.36 + 0.09 + 0.64) / 4)
    whole, cracked = (found.per_class[name] for name in NAMES[2])
    assert values_of(whole) == (0.5, 0.5, 0.5, 2)
    assert cracked.support == 2


@pytest.mark.parametrize("classes", [2, 5])
def test_metrics_are_those_of_torchmetrics(classes: int) -> None:
    import torch
    from torchmetrics import classification as reference

    logits = make_logits(300, classes, seed=1)
    predictions = calibrate_logits(logits)
    found = compute_metrics(predictions, NAMES[classes], 0)
    probabilities = torch.softmax(torch.from_numpy(logits.test), dim=1)
    calibrated = torch.from_numpy(predictions.calibrated)
    labels = torch.from_numpy(logits.test_labels)
    ece = reference.MulticlassCalibrationError(classes, n_bins=15, norm="l1")
    accuracy = reference.MulticlassAccuracy(classes, average="micro")
    balanced = reference.MulticlassAccuracy(classes, average="macro")
    auc = reference.MulticlassAUROC(classes, average="macro")
    assert found.ece.value == pytest.approx(float(ece(probabilities, labels)), abs=1e-6)
    assert found.accuracy.value == pytest.approx(float(accuracy(probabilities, labels)), abs=1e-6)
    assert found.balanced_accuracy.value == pytest.approx(float(balanced(probabilities, labels)), abs=1e-6)
    assert found.roc_auc.value == pytest.approx(float(auc(calibrated, labels)), abs=1e-6)
    assert found.ece_calibrated.value == pytest.approx(float(ece(calibrated, labels)), abs=1e-6)


@pytest.mark.parametrize("classes", [2, 5])
def test_metrics_are_those_of_scikit_learn_of_the_probabilities_that_ship(classes: int) -> None:
    predictions = calibrate_logits(make_logits(300, classes, seed=1))
    assert predictions.temperature != 1
    found, labels = compute_metrics(predictions, NAMES[classes], 0), predictions.labels
    assert found.log_loss.value == pytest.approx(metrics.log_loss(labels, predictions.calibrated))
    theirs = metrics.brier_score_loss(labels, predictions.calibrated[:, 1] if classes == 2 else predictions.calibrated)
    assert found.brier_score.value == pytest.approx(theirs)
    by_class = metrics.precision_recall_fscore_support(labels, predictions.predicted)
    for number, of in enumerate(found.per_class.values()):
        assert values_of(of) == pytest.approx([column[number] for column in by_class])


def test_a_class_without_test_pictures_has_no_roc_auc_and_no_recall() -> None:
    found = compute_metrics(
        make_predictions([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]], [0, 1, 1]), NAMES[3], 0
    )
    assert found.roc_auc == Estimate(None, absent="no test picture of chipped")
    assert found.balanced_accuracy.value == 0.75
    assert values_of(found.per_class["chipped"]) == (0.0, None, 0.0, 0)
    assert found.per_class["chipped"].recall.absent == "no such picture"


def test_many_classes_without_test_pictures_are_not_all_named() -> None:
    found = compute_metrics(calibrate_logits(make_logits(2, 30, seed=0)), NAMES[30], 0)
    assert found.roc_auc.absent == "no test picture of whole, cracked, chipped and 25 more"


def test_a_class_that_is_never_predicted_has_no_precision() -> None:
    found = compute_metrics(make_predictions([[0.8, 0.2], [0.7, 0.3], [0.9, 0.1]], [0, 1, 1]), NAMES[2], 0)
    assert values_of(found.per_class["cracked"]) == (None, 0.0, 0.0, 2)
    assert found.per_class["cracked"].precision.absent == "never predicted"
    assert found.balanced_accuracy.value == 0.5


def test_one_test_picture() -> None:
    found = compute_metrics(make_predictions([[0.8, 0.2]], [0]), NAMES[2], 0)
    accuracy = found.accuracy
    assert (accuracy.value, accuracy.high, accuracy.note) == (1.0, 1.0, "only 1 unit")
    assert accuracy.low == pytest.approx(0.05)
    assert found.roc_auc.absent == "no test picture of cracked"


# --- intervals ---


@pytest.mark.parametrize("classes", [2, 4])
def test_weighted_metrics_are_scikit_learns_on_the_resample_itself(classes: int) -> None:
    """On ties, and on resamples that miss a class, too."""
    found = calibrate_logits(make_logits(40, classes, seed=5))
    tied = found.raw.round(1) + 1e-3
    tied /= tied.sum(axis=1, keepdims=True)
    found = ClassifierPredictions(found.labels, tied, tied, 1.0)
    weights = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), 30).astype(np.float64)
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


def test_a_model_has_no_difference_from_itself() -> None:
    found = calibrate_logits(make_logits(50, 3, seed=7))
    assert evaluate_classifiers(found, found, NAMES[3], 0).difference == SAME_MODEL


def test_the_paired_difference_is_narrower_than_two_intervals() -> None:
    """Two models that differ on 5 of 200 pictures differ by little, for certain."""
    labels = np.zeros(200, dtype=int)
    right, wrong = [0.9, 0.1], [0.1, 0.9]
    head = make_predictions([wrong] * 45 + [right] * 155, labels.tolist())
    tuned = make_predictions([wrong] * 40 + [right] * 160, labels.tolist())
    difference = evaluate_classifiers(head, tuned, NAMES[2], 0).difference
    assert difference == difference_interval(tuned.correct - head.correct, np.arange(200))
    assert difference.value == pytest.approx(0.025)
    assert difference.low == pytest.approx(0.0, abs=0.006)
    assert difference.high == pytest.approx(0.05, abs=0.006)


def test_every_interval_is_over_the_units() -> None:
    """The same 40 pictures ten times each: the intervals are those of 40 pictures, not of 400."""
    logits = make_logits(40, 2, seed=3)
    repeated = SplitLogits(
        logits.val, logits.val_labels, np.repeat(logits.test, 10, axis=0), np.repeat(logits.test_labels, 10)
    )
    one = compute_metrics(calibrate_logits(logits), NAMES[2], 0)
    ten = compute_metrics(calibrate_logits(repeated, np.repeat(np.arange(40), 10)), NAMES[2], 0)
    alone = compute_metrics(calibrate_logits(repeated), NAMES[2], 0)
    assert (ten.pictures, ten.units, alone.units) == (400, 40, 400)
    for name, estimate in one.estimates().items():
        assert_counted_once(estimate, ten.estimates()[name], alone.estimates()[name])
    for label in NAMES[2]:
        for figure in ("precision", "recall", "f1"):
            assert_counted_once(*(getattr(found.per_class[label], figure) for found in (one, ten, alone)))


def assert_counted_once(once: Estimate, repeated: Estimate, unaware: Estimate) -> None:
    """Of pictures that repeat, the interval is as wide as without repeats, where their units are known."""
    widths = []
    for estimate in (once, repeated, unaware):
        assert estimate.low is not None
        assert estimate.high is not None
        widths.append(estimate.high - estimate.low)
    assert widths[1] == pytest.approx(widths[0], rel=0.25)
    assert widths[2] < 0.6 * widths[0]


def test_a_label_of_all_right_answers_is_no_proof_either() -> None:
    predictions = make_predictions([[0.9, 0.1]] * 30 + [[0.2, 0.8]] * 12, [0] * 30 + [1] * 12)
    found = compute_metrics(predictions, NAMES[2], 0)
    for estimate in (found.balanced_accuracy, found.per_class["cracked"].recall, found.per_class["cracked"].f1):
        assert estimate.value == estimate.high == 1
        assert estimate.low is not None
        assert estimate.low < 0.87
    recall = found.per_class["cracked"].recall
    assert recall == mean_interval(np.ones(12), np.arange(12))
    assert recall.note == "only 12 units"


def test_f1_is_covered_as_the_share_it_is_a_function_of() -> None:
    """15 right, 3 missed, 2 false: J = 15 / 20, F1 = 2 J / (1 + J)."""
    labels = [1] * 18 + [0] * 42
    says_it = [[0.1, 0.9]] * 15 + [[0.9, 0.1]] * 3 + [[0.1, 0.9]] * 2 + [[0.9, 0.1]] * 40
    f1 = compute_metrics(make_predictions(says_it, labels), NAMES[2], 0).per_class["cracked"].f1
    share = mean_interval(np.repeat([1.0, 0.0], [15, 5]), np.arange(20))
    assert f1.value == pytest.approx(30 / 35)
    assert share.low is not None
    assert share.high is not None
    assert (f1.low, f1.high) == pytest.approx([2 * j / (1 + j) for j in (share.low, share.high)])


@settings(max_examples=40, deadline=None)
@given(seed=seeds, pictures=st.integers(1, 60), classes=st.integers(2, 6), scale=st.floats(0.01, 100))
def test_intervals_contain_their_metric_and_lie_in_range(seed: int, pictures: int, classes: int, scale: float) -> None:
    found = compute_metrics(calibrate_logits(make_logits(pictures, classes, seed, scale)), NAMES[classes], 0)
    for name, estimate in found.estimates().items():
        if estimate.value is None:
            assert estimate.absent
            continue
        if estimate.low is None or estimate.high is None:
            assert estimate.note.startswith("no interval")
            continue
        assert 0 <= estimate.low <= estimate.value <= estimate.high
        assert estimate.high > estimate.low
        assert name not in RATES or estimate.high <= 1 + 1e-12


@settings(max_examples=25, deadline=None)
@given(seed=seeds, classes=st.integers(2, 5))
def test_the_order_of_pictures_changes_no_point_estimate(seed: int, classes: int) -> None:
    logits = make_logits(40, classes, seed)
    order = np.random.default_rng(seed).permutation(40)
    shuffled = SplitLogits(logits.val, logits.val_labels, logits.test[order], logits.test_labels[order])
    one, other = (compute_metrics(calibrate_logits(x), NAMES[classes], 0) for x in (logits, shuffled))
    for name, estimate in one.estimates().items():
        assert other.estimates()[name].value == (None if estimate.value is None else pytest.approx(estimate.value))
    for name, of in one.per_class.items():
        assert values_of(of) == values_of(other.per_class[name])
