"""What the evaluate stage writes for a classifier."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from headstart.base.errors import UserError
from headstart.base.files import write_bytes
from headstart.evaluation.classifier.results import classifier_metrics_json, classifier_results
from headstart.metrics.calibration import ClassifierPredictions
from headstart.metrics.classification import evaluate_classifiers
from headstart.params.root import EvaluateParams
from synthetic_logits import NAMES, make_facts, make_test_set, write_evaluation


def make_predictions(probabilities: list[list[float]], labels: list[int]) -> ClassifierPredictions:
    """Predictions with these very probabilities, before and after a calibration that changes nothing."""
    array = np.array(probabilities, dtype=float)
    return ClassifierPredictions(np.array(labels), array, array, 1.0)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stage wrote for 30 pictures and 3 classes; only for reading."""
    return write_evaluation(tmp_path_factory.mktemp("evaluation"))


def test_two_runs_leave_the_same_bytes(out: Path, tmp_path: Path) -> None:
    one, other = out, write_evaluation(tmp_path)
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    assert {"metrics.json", "predictions.json", "report.html"} <= {str(path) for path in files}
    for path in files:
        assert (one / path).read_bytes() == (other / path).read_bytes(), path


def test_metrics_are_laid_out_for_dvc(out: Path) -> None:
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics) == ["test", "head_only", "difference"]
    for model in ("test", "head_only"):
        assert metrics[model]["accuracy_low"] <= metrics[model]["accuracy"] <= metrics[model]["accuracy_high"]
        assert metrics[model]["pictures"] == 30
        of_label = metrics[model]["per_class"][NAMES[3][0]]
        for figure in ("precision", "recall", "f1"):
            assert of_label[f"{figure}_low"] <= of_label[figure] <= of_label[f"{figure}_high"]
            assert of_label[f"{figure}_low"] < of_label[f"{figure}_high"]
            assert of_label[f"{figure}_note"].startswith("only")
        assert set(of_label) - {"support"} == {
            f"{figure}{end}" for figure in ("precision", "recall", "f1") for end in ("", "_low", "_high", "_note")
        }
        for figure in ("log_loss", "brier_score"):
            assert metrics[model][f"{figure}_low"] < metrics[model][figure] < metrics[model][f"{figure}_high"]
        for figure in ("ece", "ece_calibrated"):
            assert metrics[model][f"{figure}_perfect_low"] < metrics[model][f"{figure}_perfect_high"]
            assert f"{figure}_low" not in metrics[model]
    gain = metrics["test"]["accuracy"] - metrics["head_only"]["accuracy"]
    assert metrics["difference"]["accuracy"] == pytest.approx(gain, abs=2e-6)
    assert metrics["difference"]["accuracy_low"] < metrics["difference"]["accuracy_high"]
    assert metrics["test"]["units"] == 30


def test_an_undefined_metric_has_its_reason() -> None:
    predictions = make_predictions([[0.8, 0.2], [0.7, 0.3]], [0, 0])
    written = classifier_metrics_json(evaluate_classifiers(predictions, predictions, NAMES[2], 0))
    model = json.loads(json.dumps(written["test"], allow_nan=False))
    assert model["roc_auc_absent"] == "no test picture of cracked"
    assert "roc_auc" not in model
    assert "recall" not in model["per_class"]["cracked"]
    assert model["per_class"]["cracked"]["recall_absent"] == "no such picture"
    assert written["difference"] == {"accuracy": 0.0, "accuracy_note": "the same model"}


def test_log_loss_is_of_the_probabilities_that_ship(out: Path) -> None:
    """Of those in predictions.json, to their six decimals."""
    rows = json.loads((out / "predictions.json").read_text())
    losses = [-np.log(row["fine_tuned"]["probabilities"][row["label"]]) for row in rows]
    metrics = json.loads((out / "metrics.json").read_text())["test"]
    assert metrics["temperature"] != 1
    assert metrics["log_loss"] == pytest.approx(np.mean(losses), abs=1e-4)


def test_intervals_are_over_the_units_of_the_test_pictures(tmp_path: Path) -> None:
    """Groups in the manifest reach every figure."""
    test_set, head_only, fine_tuned, histories = make_test_set(tmp_path, 2, 60)
    images = tuple(image.model_copy(update={"group": f"g{image.id // 5}"}) for image in test_set.images)
    evaluation, results = classifier_results(
        replace(test_set, images=images),
        head_only,
        fine_tuned,
        params=EvaluateParams(bootstrap=100, gallery=0),
        seed=0,
        histories=histories,
        facts=make_facts(test_set.labels),
    )
    assert evaluation.fine_tuned.units == 13
    assert evaluation.fine_tuned.accuracy.note == evaluation.difference.note == "only 13 units"
    assert "60 pictures of 13 units" in results.report


def test_predictions_hold_every_picture_and_both_models(out: Path) -> None:
    rows = json.loads((out / "predictions.json").read_text())
    assert len(rows) == 30
    correct = [row["fine_tuned"]["correct"] for row in rows]
    assert np.mean(correct) == pytest.approx(json.loads((out / "metrics.json").read_text())["test"]["accuracy"])
    for row in rows:
        for model in ("head_only", "fine_tuned"):
            prediction = row[model]
            assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-5)
            assert prediction["predicted"] == max(prediction["probabilities"], key=prediction["probabilities"].get)
            assert prediction["correct"] == (prediction["predicted"] == row["label"])


def test_the_gallery_holds_the_most_confident_mistakes(out: Path) -> None:
    with (out / "gallery/mistakes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    predictions = {p["file_name"]: p["fine_tuned"] for p in json.loads((out / "predictions.json").read_text())}
    wrong = sorted((max(p["probabilities"].values()) for p in predictions.values() if not p["correct"]), reverse=True)
    assert [float(row["confidence"]) for row in rows] == wrong[:5]
    for row in rows:
        assert predictions[row["file_name"]]["predicted"] == row["predicted"] != row["label"]
        with PIL.Image.open(out / "gallery" / row["thumbnail"]) as picture:
            assert picture.format == "JPEG"
            assert max(picture.size) <= 256


def test_without_a_gallery_no_earlier_one_stays(tmp_path: Path) -> None:
    write_bytes(tmp_path / "stages/evaluate/gallery/001-earlier.jpg", b"")
    out = write_evaluation(tmp_path, gallery=0)
    assert [path.name for path in (out / "gallery").iterdir()] == ["mistakes.csv"]


@pytest.mark.parametrize(("classes", "pictures"), [(2, 1), (3, 2), (30, 90)])
def test_few_pictures_and_many_classes_are_written_completely(tmp_path: Path, classes: int, pictures: int) -> None:
    out = write_evaluation(tmp_path, classes, pictures)
    assert (out / "report.html").stat().st_size > 10_000
    assert (out / "plots/roc.csv").read_text().startswith("fpr,tpr\n")


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"images/.*no such file; .*dvc repro"):
        write_evaluation(tmp_path, gallery=3, pictures_on_disk=False)
    assert not (tmp_path / "stages/evaluate").exists()
