"""ROC and precision-recall against scikit-learn and cases worked by hand; their CSV files."""

import csv
import io

import numpy as np
import pytest
from sklearn import metrics

from headstart.evaluation.classifier.curves import (
    classifier_plot_csvs,
    mean_precision_recall_curve,
    mean_roc_curve,
)
from headstart.metrics.calibration import calibrate_logits
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
    area = metrics.roc_auc_score(predictions.labels, predictions.calibrated, multi_class="ovr")
    assert metrics.auc(*mean_roc_curve(predictions)) == pytest.approx(area, abs=0.01)


def test_csv_for_dvc_reads_back() -> None:
    predictions = calibrate_logits(make_logits(50, 2, seed=4))
    texts = classifier_plot_csvs(predictions, ("a,b", "c"))
    tables = {name: list(csv.DictReader(io.StringIO(text))) for name, text in texts.items()}
    assert [row["actual"] for row in tables["confusion.csv"]] == [("a,b", "c")[n] for n in predictions.labels]
    assert [row["predicted"] for row in tables["confusion.csv"]] == [("a,b", "c")[n] for n in predictions.predicted]
    assert (tables["roc.csv"][0]["fpr"], tables["roc.csv"][-1]["tpr"]) == ("0.0", "1.0")
    assert sum(int(row["pictures"]) for row in tables["reliability.csv"]) == 50
    assert all(float(row["perfect_low"]) <= float(row["perfect_high"]) for row in tables["reliability.csv"])
    points = np.array([[float(row[key]) for key in ("recall", "precision")] for row in tables["precision-recall.csv"]])
    area = (np.diff(points[:, 0]) * points[1:, 1]).sum()
    assert area == pytest.approx(metrics.average_precision_score(predictions.labels, predictions.raw[:, 1]), abs=1e-4)
