"""What the evaluate stage writes for a detector."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from headstart.base.manifest import write_manifest
from headstart.evaluation.detector.results import detector_metrics_json
from headstart.evaluation.detector.suppression import Suppression
from headstart.metrics.coco_matching import match_detections
from headstart.metrics.detection import evaluate_detectors
from headstart.metrics.threshold import choose_threshold
from synthetic_boxes import NAMES, manifest, random_boxes, write_random_evaluation


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_evaluation(tmp_path_factory.mktemp("evaluation"))


def test_two_runs_leave_the_same_bytes(out: Path, tmp_path: Path) -> None:
    other = write_random_evaluation(tmp_path)
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    assert {"metrics.json", "predictions.json", "report.html"} <= {str(path) for path in files}
    for path in files:
        assert (out / path).read_bytes() == (other / path).read_bytes(), path


def test_metrics_are_laid_out_for_dvc(out: Path) -> None:
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics) == ["test", "head_only", "difference", "class_agnostic_nms"]
    for model in ("test", "head_only"):
        one = metrics[model]
        for name in ("AP", "AP50", "AP75", "AR_1", "AR_10", "AR_100", "precision", "recall", "f1"):
            assert 0 <= one[f"{name}_low"] < one[name] < one[f"{name}_high"] <= 1
        for name in ("AP_small", "AP_medium", "AP_large"):
            assert 0 <= one[f"{name}_low"] <= one[name] <= one[f"{name}_high"] <= 1
        for of_label in one["per_class"].values():
            for name in ("AP", "AP50"):
                assert 0 <= of_label[f"{name}_low"] < of_label[name] < of_label[f"{name}_high"] <= 1
        assert (one["pictures"], one["units"], "threshold" in one) == (12, 12, True)
        assert set(one["per_class"]) == set(NAMES)
        outcomes = one["outcomes"]
        assert list(outcomes) == ["correct", "wrong_label", "second_box", "nothing_there", "missed"]
        detected = sum(outcomes.values()) - outcomes["missed"]
        assert one["precision"] == pytest.approx(outcomes["correct"] / detected, abs=1e-6)
        assert one["recall"] == pytest.approx(outcomes["correct"] / one["boxes"], abs=1e-6)
    assert metrics["test"]["AP"] > metrics["head_only"]["AP"]
    gain = metrics["test"]["AP"] - metrics["head_only"]["AP"]
    assert metrics["difference"]["AP"] == pytest.approx(gain, abs=2e-6)


def test_an_undefined_metric_has_its_reason() -> None:
    matches = match_detections(manifest([[]]), [])
    model = (matches, choose_threshold(matches.classes))
    evaluation = evaluate_detectors(model, model, NAMES, crowds=0, resamples=100, seed=0)
    content = detector_metrics_json(evaluation, {}, Suppression(across_labels=False))
    metrics = json.loads(json.dumps(content, allow_nan=False))
    assert metrics["test"]["AP_absent"] == metrics["difference"]["AP_absent"] == "no box in the test pictures"
    assert "AP" not in metrics["test"]


def test_predictions_are_coco_results(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    write_manifest(random_boxes(2, 12), tmp_path / "test.json")
    truth = COCO(str(tmp_path / "test.json"))
    run = COCOeval(truth, truth.loadRes(str(out / "predictions.json")), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    assert "Average Precision" in capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())["test"]
    assert run.stats[:3] == pytest.approx([metrics[name] for name in ("AP", "AP50", "AP75")], abs=1e-3)


def test_csv_for_dvc_reads_back(out: Path) -> None:
    with (out / "plots/confusion.csv").open() as file:
        pairs = list(csv.DictReader(file))
    metrics = json.loads((out / "metrics.json").read_text())["test"]
    true_positives = sum(row["actual"] == row["predicted"] for row in pairs)
    assert true_positives == pytest.approx(metrics["recall"] * metrics["boxes"], abs=1e-3)
    assert {row["actual"] for row in pairs} <= {*NAMES, "background"}
    with (out / "plots/precision-recall.csv").open() as file:
        mean = [float(row["precision"]) for row in csv.DictReader(file)]
    assert np.mean(mean) == pytest.approx(metrics["AP50"], abs=1e-5)
    with (out / "plots/precision-recall-labels.csv").open() as file:
        points = list(csv.DictReader(file))
    for name in NAMES:
        of_label = [float(row["precision"]) for row in points if row["label"] == name]
        assert np.mean(of_label) == pytest.approx(metrics["per_class"][name]["AP50"], abs=1e-5)
