"""Curves of a classifier's predictions (ROC, precision-recall, reliability), and their CSV files."""

from collections.abc import Sequence

import numpy as np
from sklearn import metrics

from headstart.base.arrays import Floats
from headstart.base.files import csv_text
from headstart.evaluation.plot_csvs import confusion_csv, precision_recall_csv
from headstart.metrics.calibration import ClassifierPredictions
from headstart.metrics.calibration_error import reliability_bins

_MEAN_CURVE_GRID = np.linspace(0, 1, 101)  # on the x axis, where the curves of several classes are averaged


def mean_roc_curve(predictions: ClassifierPredictions) -> tuple[Floats, Floats]:
    """False and true positive rates: of the last of two classes, else the mean curve over one-vs-rest.

    Empty where no class has both positives and negatives.
    """
    curves = [
        metrics.roc_curve(predictions.labels == c, predictions.calibrated[:, c])
        for c in _one_vs_rest_classes(predictions)
    ]
    return _interpolated_mean([(fpr, tpr) for fpr, tpr, _ in curves])


def mean_precision_recall_curve(predictions: ClassifierPredictions) -> tuple[Floats, Floats]:
    """Recall and precision, of the same classes as `mean_roc_curve`."""
    curves = [
        metrics.precision_recall_curve(predictions.labels == c, predictions.calibrated[:, c])
        for c in _one_vs_rest_classes(predictions)
    ]
    return _interpolated_mean([(recall[::-1], precision[::-1]) for precision, recall, _ in curves])


def _one_vs_rest_classes(predictions: ClassifierPredictions) -> list[int]:
    classes = range(1 if predictions.calibrated.shape[1] == 2 else 0, predictions.calibrated.shape[1])
    return [c for c in classes if 0 < np.count_nonzero(predictions.labels == c) < len(predictions.labels)]


def _interpolated_mean(curves: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    if not curves:
        return np.empty(0), np.empty(0)
    if len(curves) == 1:
        return curves[0]
    return _MEAN_CURVE_GRID, np.mean([np.interp(_MEAN_CURVE_GRID, x, y) for x, y in curves], axis=0)


def classifier_plot_csvs(predictions: ClassifierPredictions, names: Sequence[str]) -> dict[str, str]:
    """CSV texts by file name, of the fine-tuned model's predictions; reliability of the calibrated ones."""
    bins = reliability_bins(predictions, predictions.calibrated)
    columns = (*(x.round(6) for x in (bins.confidence, bins.accuracy, bins.low, bins.high)), bins.pictures)
    return {
        "confusion.csv": confusion_csv(zip(predictions.labels, predictions.predicted, strict=True), names),
        "roc.csv": csv_text(("fpr", "tpr"), np.stack(mean_roc_curve(predictions), axis=1).round(6).tolist()),
        "precision-recall.csv": precision_recall_csv(*mean_precision_recall_curve(predictions)),
        "reliability.csv": csv_text(
            ("confidence", "accuracy", "perfect_low", "perfect_high", "pictures"),
            zip(*(column.tolist() for column in columns), strict=True),
        ),
    }
