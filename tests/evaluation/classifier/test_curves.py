"""ROC, precision-recall and reliability against scikit-learn and cases worked by hand; their CSV files."""

import csv
import io

import numpy as np
import pytest
from sklearn import metrics

from headstart.evaluation.classifier.curves import (
    classifier_plot_csvs,
    mean_precision_recall_curve,
    mean_roc_curve,
    reliability_bins,
)
from headstart.metrics.calibration import ClassifierPredictions, calibrate_logits
from headstart.metrics.classification import weighted_metrics
from synthetic_logits import make_logits


def test_roc_of_two_classes_is_scikit_learns() -> None:
    predictions = calibrate_logits(make_logits(80, 2, seed=1))
    x, y = mean_roc_curve(predictions)
    assert metrics.auc(x, y) == pytest.approx(metrics.roc_auc_score(predictions.labels, predictions.raw[:, 1]))
    recall, precision = mean_precision_recall_curve(predictions)
    assert (recall[0], recall[-1]) == (0, 1)
    assert precision[0] == 1


def test_mean_roc_has_nearly_the_mean_area() -> None:
    predictions = calibrate_logits(make_logits(400, 4, seed=2))
    area = metrics.roc_auc_score(predictions.labels, predictions.raw, multi_class="ovr")
    assert metrics.auc(*mean_roc_curve(predictions)) == pytest.approx(area, abs=0.01)


def test_reliability_bins_add_up_to_the_calibration_error() -> None:
    predictions = calibrate_logits(make_logits(250, 3, seed=3))
    bins = reliability_bins(predictions, predictions.calibrated)
    assert bins.pictures.sum() == 250
    ece = (np.abs(bins.accuracy - bins.confidence) * bins.pictures).sum() / 250
    assert weighted_metrics(predictions, np.ones((1, 250)))["ece_calibrated"][0] == pytest.approx(ece)


def test_reliability_of_a_case_worked_by_hand() -> None:
    # Bins of 1/15: 0.61 and 0.62 share (0.6, 0.667], 1.0 is in the last.
    probabilities = np.array([[0.61, 0.39], [0.38, 0.62], [1.0, 0.0]])
    predictions = ClassifierPredictions(np.array([0, 0, 0]), probabilities, probabilities, 1.0)
    bins = reliability_bins(predictions, probabilities)
    assert bins.confidence.tolist() == pytest.approx([0.615, 1.0])
    assert bins.accuracy.tolist() == [0.5, 1.0]
    assert bins.pictures.tolist() == [2, 1]


def test_csv_for_dvc_reads_back() -> None:
    predictions = calibrate_logits(make_logits(50, 2, seed=4))
    texts = classifier_plot_csvs(predictions, ("a,b", "c"))
    tables = {name: list(csv.DictReader(io.StringIO(text))) for name, text in texts.items()}
    assert [row["actual"] for row in tables["confusion.csv"]] == [("a,b", "c")[n] for n in predictions.labels]
    assert [row["predicted"] for row in tables["confusion.csv"]] == [("a,b", "c")[n] for n in predictions.predicted]
    assert (tables["roc.csv"][0]["fpr"], tables["roc.csv"][-1]["tpr"]) == ("0.0", "1.0")
    assert sum(int(row["pictures"]) for row in tables["reliability.csv"]) == 50
    points = np.array([[float(row[key]) for key in ("recall", "precision")] for row in tables["precision-recall.csv"]])
    area = (np.diff(points[:, 0]) * points[1:, 1]).sum()
    assert area == pytest.approx(metrics.average_precision_score(predictions.labels, predictions.raw[:, 1]), abs=1e-4)
