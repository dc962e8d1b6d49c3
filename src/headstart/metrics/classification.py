"""Metrics of a classifier on the test pictures, each with a bootstrap interval. Arrays in, numbers out; no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn import metrics

from headstart.base.arrays import Bools, Floats, Ints
from headstart.base.errors import list_some
from headstart.metrics.bootstrap import Estimate, bootstrap_estimate, resample_weights
from headstart.metrics.calibration import ECE_BINS, ClassifierPredictions, confidence_bin


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class: None where the class was never predicted (precision) or has no picture (recall)."""

    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True)
class ClassifierMetrics:
    """All metrics of one model on the test pictures."""

    pictures: int
    accuracy: Estimate
    balanced_accuracy: Estimate
    roc_auc: Estimate
    log_loss: Estimate
    ece: Estimate
    ece_calibrated: Estimate
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
    head_only: ClassifierPredictions, fine_tuned: ClassifierPredictions, names: Sequence[str], resamples: int, seed: int
) -> ClassifierEvaluation:
    """Metrics of both models and the paired difference of their accuracies, all three on the same resamples.

    Args:
        head_only: predictions of the model whose head alone was trained.
        fine_tuned: predictions of the fine-tuned model, for the same pictures.
        names: of the classes, in the order of their numbers.
        resamples: number of bootstrap resamples.
        seed: of the resamples.
    """
    assert np.array_equal(head_only.labels, fine_tuned.labels), "the two models predicted different pictures"
    gain = fine_tuned.correct - head_only.correct
    samples = np.concatenate([weights @ gain / len(gain) for weights in resample_weights(len(gain), resamples, seed)])
    return ClassifierEvaluation(
        compute_metrics(head_only, names, resamples, seed),
        compute_metrics(fine_tuned, names, resamples, seed),
        bootstrap_estimate(gain.mean(), samples),
    )


def compute_metrics(
    predictions: ClassifierPredictions, names: Sequence[str], resamples: int, seed: int
) -> ClassifierMetrics:
    """All metrics of one model, with percentile bootstrap intervals (Efron 1979).

    A class that is missing from a resample is left out of the class means of that resample. Accuracy, ROC AUC and log
    loss are of the uncalibrated probabilities (a temperature changes no prediction). ROC AUC is of the last class where
    there are two, else the mean over one-vs-rest. ECE is the expected calibration error of the predicted class over 15
    equal bins (Guo et al. 2017, arXiv 1706.04599).

    Args:
        predictions: of the model, on the test pictures.
        names: of the classes, in the order of their numbers.
        resamples: number of bootstrap resamples.
        seed: of the resamples.
    """
    assert len(names) == predictions.raw.shape[1], f"{len(names)} names for {predictions.raw.shape[1]} classes"
    point = _point_estimates(predictions)
    blocks = [
        weighted_metrics(predictions, weights) for weights in resample_weights(len(predictions.labels), resamples, seed)
    ]
    estimates = {
        name: bootstrap_estimate(value, np.concatenate([block[name] for block in blocks]))
        for name, value in point.items()
    }
    return ClassifierMetrics(
        pictures=len(predictions.labels),
        temperature=predictions.temperature,
        per_class=_class_metrics(predictions, names),
        **({"roc_auc": Estimate(None, absent=_roc_auc_absent_reason(predictions, names))} | estimates),
    )


def _point_estimates(predictions: ClassifierPredictions) -> dict[str, float]:
    """The metrics on the pictures as they are, by scikit-learn; ECE, which it does not have, by `weighted_metrics`."""
    labels, raw, predicted = predictions.labels, predictions.raw, predictions.predicted
    classes = np.arange(raw.shape[1])
    unweighted = weighted_metrics(predictions, np.ones((1, len(labels))))
    point = {
        "accuracy": metrics.accuracy_score(labels, predicted),
        # Balanced accuracy is the mean recall; `labels` leaves classes without pictures out, without a warning.
        "balanced_accuracy": metrics.recall_score(labels, predicted, labels=np.unique(labels), average="macro"),
        "log_loss": metrics.log_loss(labels, raw, labels=classes),
        "ece": unweighted["ece"][0],
        "ece_calibrated": unweighted["ece_calibrated"][0],
    }
    if len(np.unique(labels)) == len(classes):
        positive = raw[:, 1] if len(classes) == 2 else raw
        point["roc_auc"] = metrics.roc_auc_score(labels, positive, multi_class="ovr", labels=classes)
    return {name: float(value) for name, value in point.items()}


def _roc_auc_absent_reason(predictions: ClassifierPredictions, names: Sequence[str]) -> str:
    missing = [name for number, name in enumerate(names) if number not in predictions.labels]
    return f"no test picture of {list_some(missing, 3)}" if missing else ""


def _class_metrics(predictions: ClassifierPredictions, names: Sequence[str]) -> dict[str, ClassMetrics]:
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        predictions.labels, predictions.predicted, labels=np.arange(len(names)), zero_division=np.nan
    )
    return {
        name: ClassMetrics(_nan_to_none(p), _nan_to_none(r), _nan_to_none(f), int(n))
        for name, p, r, f, n in zip(names, precision, recall, f1, support, strict=True)
    }


def _nan_to_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def weighted_metrics(predictions: ClassifierPredictions, weights: Floats) -> dict[str, Floats]:
    """The metrics under each row of sample weights: scikit-learn's with `sample_weight`, for all rows at once.

    Args:
        predictions: of n pictures.
        weights: (b, n).

    Returns:
        metric -> (b,). Class means are over the classes that a row contains; ROC AUC is NaN for a row of one class.
    """
    labels, correct, total = predictions.labels, predictions.correct, weights.sum(axis=1)
    label_probability = predictions.raw[np.arange(len(labels)), labels]
    epsilon = np.finfo(np.float64).eps  # clipped as scikit-learn does
    one_hot = np.eye(predictions.raw.shape[1])[labels]
    with np.errstate(invalid="ignore"):  # 0/0: a class that is not in the row
        recall = (weights @ (one_hot * correct[:, None])) / (weights @ one_hot)
    return {
        "accuracy": weights @ correct / total,
        "balanced_accuracy": np.nanmean(recall, axis=1),
        "roc_auc": _roc_auc(weights, predictions.raw, labels),
        "log_loss": weights @ -np.log(np.clip(label_probability, epsilon, 1 - epsilon)) / total,
        "ece": _ece_sum(weights, predictions.raw, correct) / total,
        "ece_calibrated": _ece_sum(weights, predictions.calibrated, correct) / total,
    }


def _ece_sum(weights: Floats, probabilities: Floats, correct: Floats) -> Floats:
    """Sum over the bins of |correct predictions - confidence|, (b,): ECE times the number of pictures."""
    confidence = probabilities.max(axis=1)
    bins = np.eye(ECE_BINS)[confidence_bin(confidence)]
    return np.asarray(np.abs(weights @ (bins * (correct - confidence)[:, None])).sum(axis=1))


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
