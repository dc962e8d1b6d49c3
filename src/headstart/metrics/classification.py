"""Metrics of a classifier on the test pictures, each with its interval. Arrays in, numbers out; no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Bools, Floats, Ints
from headstart.base.errors import list_some
from headstart.metrics.calibration import ClassifierPredictions
from headstart.metrics.calibration_error import (
    DRAWS,
    CalibrationError,
    brier_score_interval,
    calibration_error,
    log_loss_interval,
)
from headstart.metrics.estimate import Estimate
from headstart.metrics.intervals import SAME_MODEL, difference_interval, mean_interval
from headstart.metrics.label_shares import ClassMetrics, balanced_accuracy_interval, class_metrics
from headstart.metrics.roc_auc import roc_auc_interval


@dataclass(frozen=True)
class ClassifierMetrics:
    """All metrics of one model on the test pictures, of its calibrated probabilities but for `ece`."""

    pictures: int
    units: int
    accuracy: Estimate
    balanced_accuracy: Estimate
    roc_auc: Estimate
    log_loss: Estimate
    brier_score: Estimate
    ece: CalibrationError
    ece_calibrated: CalibrationError
    temperature: float
    per_class: dict[str, ClassMetrics]

    def estimates(self) -> dict[str, Estimate]:
        """The metrics that have an interval, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Estimate)}


@dataclass(frozen=True)
class ClassifierEvaluation:
    """Both models on the same pictures; `difference` is fine-tuned minus head-only, in accuracy."""

    head_only: ClassifierMetrics
    fine_tuned: ClassifierMetrics
    difference: Estimate


def evaluate_classifiers(
    head_only: ClassifierPredictions,
    fine_tuned: ClassifierPredictions,
    names: Sequence[str],
    seed: int,
    draws: int = DRAWS,
) -> ClassifierEvaluation:
    """Metrics of both models and the paired difference of their accuracies.

    Args:
        head_only: predictions of the model whose head alone was trained.
        fine_tuned: predictions of the fine-tuned model, for the same pictures; where fine-tuning kept the head they are
            the same to the bit, and there is no difference.
        names: of the classes, in the order of their numbers.
        seed: of what is drawn for the calibration error.
        draws: for it, of a perfectly calibrated model's answers.
    """
    assert np.array_equal(head_only.labels, fine_tuned.labels), "the two models predicted different pictures"
    same = np.array_equal(head_only.raw, fine_tuned.raw)
    return ClassifierEvaluation(
        compute_metrics(head_only, names, seed, draws),
        compute_metrics(fine_tuned, names, seed, draws),
        SAME_MODEL if same else difference_interval(fine_tuned.correct - head_only.correct, fine_tuned.units),
    )


def compute_metrics(
    predictions: ClassifierPredictions, names: Sequence[str], seed: int, draws: int = DRAWS
) -> ClassifierMetrics:
    """All metrics of one model, with intervals over the units of the test pictures.

    Accuracy and all that follows from the predicted labels are the same with and without calibration. ROC AUC, log loss
    and Brier score are of the calibrated probabilities, which are those of the exported model (with two labels ROC AUC
    is the same before). ROC AUC is of the last class where there are two, else the mean over one-vs-rest.

    Args:
        predictions: of the model, on the test pictures.
        names: of the classes, in the order of their numbers.
        seed: of what is drawn for the calibration error.
        draws: for it, of a perfectly calibrated model's answers.
    """
    probabilities, labels, units = predictions.calibrated, predictions.labels, predictions.units
    assert len(names) == probabilities.shape[1], f"{len(names)} names for {probabilities.shape[1]} classes"
    missing = [name for number, name in enumerate(names) if number not in labels]
    return ClassifierMetrics(
        pictures=len(labels),
        units=len(np.unique(units)),
        accuracy=mean_interval(predictions.correct, units),
        balanced_accuracy=balanced_accuracy_interval(predictions.correct, labels, units),
        roc_auc=Estimate(None, absent=f"no test picture of {list_some(missing, 3)}")
        if missing
        else roc_auc_interval(probabilities, labels, units),
        log_loss=log_loss_interval(probabilities, labels, units),
        brier_score=brier_score_interval(probabilities, labels, units),
        ece=calibration_error(predictions, predictions.raw, seed, draws),
        ece_calibrated=calibration_error(predictions, probabilities, seed, draws),
        temperature=predictions.temperature,
        per_class={
            name: class_metrics(labels, predictions.predicted, number, units) for number, name in enumerate(names)
        },
    )


def weighted_metrics(predictions: ClassifierPredictions, weights: Floats) -> dict[str, Floats]:
    """The metrics under each row of sample weights: scikit-learn's with `sample_weight`, for all rows at once.

    Args:
        predictions: of n pictures.
        weights: (b, n).

    Returns:
        metric -> (b,). Class means are over the classes that a row contains; ROC AUC is NaN for a row of one class.
    """
    labels, correct, total = predictions.labels, predictions.correct, weights.sum(axis=1)
    one_hot = np.eye(predictions.raw.shape[1])[labels]
    with np.errstate(invalid="ignore"):  # 0/0: a class that is not in the row
        recall = (weights @ (one_hot * correct[:, None])) / (weights @ one_hot)
    return {
        "accuracy": weights @ correct / total,
        "balanced_accuracy": np.nanmean(recall, axis=1),
        "roc_auc": _roc_auc(weights, predictions.calibrated, labels),
        "log_loss": weights @ predictions.losses / total,
    }


def _roc_auc(weights: Floats, probabilities: Floats, labels: Ints) -> Floats:
    """ROC AUC of the last of two classes, else the mean over one-vs-rest, (b,)."""
    classes = probabilities.shape[1]
    picture_weights = np.ascontiguousarray(weights.T)  # (n, b): selecting pictures selects rows, several times as fast
    positive_classes = [1] if classes == 2 else range(classes)
    areas = np.stack([_binary_roc_auc(picture_weights, probabilities[:, c], labels == c) for c in positive_classes])
    defined = ~np.isnan(areas)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(defined, areas, 0).sum(axis=0) / defined.sum(axis=0))


def _binary_roc_auc(weights: Floats, scores: Floats, positive: Bools) -> Floats:
    """Area under the ROC curve: share of (positive, negative) pairs in the right order, ties half. (n, b) -> (b,)."""
    negative = np.flatnonzero(~positive)
    negative = negative[np.argsort(scores[negative], kind="stable")]
    negatives_up_to = np.zeros((len(negative) + 1, weights.shape[1]))
    np.cumsum(weights[negative], axis=0, out=negatives_up_to[1:])
    below = negatives_up_to[np.searchsorted(scores[negative], scores[positive], "left")]
    not_above = negatives_up_to[np.searchsorted(scores[negative], scores[positive], "right")]
    with np.errstate(invalid="ignore"):  # 0/0: a row without positives or negatives
        pairs = weights[positive].sum(axis=0) * negatives_up_to[-1]
        return np.asarray((weights[positive] * (below + not_above) / 2).sum(axis=0) / pairs)
