"""The evaluate stage: both models on the same test set, and the facts in the report."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from conftest import Project
from headstart.base.errors import UserError
from headstart.base.manifest import read_manifest, write_manifest
from headstart.engine.device import configure_torch
from headstart.engine.inference import run_inference
from headstart.engine.pixels import load_pixels
from headstart.models import classifier
from headstart.models.file import read_model_file
from headstart.params.training import TrainParams
from tiny import evaluate


@pytest.mark.parametrize(("stage", "name"), [("train-head", "head_only"), ("fine-tune", "fine_tuned")])
def test_predictions_are_those_of_the_models_file(project: Project, stage: str, name: str) -> None:
    """Accuracy and predictions, computed again from it."""
    tensors, spec = read_model_file(project.root / f"stages/{stage}/model.safetensors")
    test = tiny.manifest(project.root, "split", "test").images
    pixels = load_pixels(test, project.root, spec.input, "decode")
    compute = configure_torch(TrainParams(precision="fp32"), 0)
    logits = run_inference(classifier.build(tensors, spec), pixels, spec.input, compute)
    rows = tiny.read_json(project.root / "stages/evaluate/predictions.json")
    assert [row["file_name"] for row in rows] == [image.file_name for image in test]
    assert [row["label"] for row in rows] == [image.label for image in test]
    metrics = tiny.read_json(project.root / "stages/evaluate/metrics.json")
    model_metrics = metrics["test" if name == "fine_tuned" else name]
    for row, number, of_picture in zip(rows, logits.argmax(1), logits, strict=True):
        if of_picture.max() - of_picture.min() > 0.05:  # head_only is evaluated in bf16, where the machine has it
            assert row[name]["predicted"] == spec.labels[number]
    correct = sum(row[name]["correct"] for row in rows)
    assert model_metrics["accuracy"] == pytest.approx(correct / 6, abs=1e-6)
    calibrated = (logits / model_metrics["temperature"]).softmax(1)
    written = torch.tensor([[row[name]["probabilities"][label] for label in spec.labels] for row in rows])
    np.testing.assert_allclose(written, calibrated, atol=1e-4 if name == "fine_tuned" else 0.05)


def test_metrics_have_their_intervals(project: Project) -> None:
    metrics = tiny.read_json(project.root / "stages/evaluate/metrics.json")
    for model in ("test", "head_only"):
        values = metrics[model]
        assert values["pictures"] == 6
        assert 0 <= values["accuracy_low"] <= values["accuracy"] <= values["accuracy_high"] <= 1
        assert set(values["per_class"]) == {"blue", "red"}


def test_the_report_has_the_settings(project: Project) -> None:
    page = (project.root / "stages/evaluate/report.html").read_text(encoding="utf-8")
    for text in (
        "blue or red: evaluation report",
        f"{tiny.TRUNK} with a new head: hidden layers 8, dropout 0.2",
        "32 px (squash)",
        "3 of 6 blocks",
        "folder:data",
        "conv_stem",
    ):
        assert text in page, text
    assert "mlflow.source.git.commit" in page
    assert "git checkout &lt;its commit&gt;\ncp &lt;its params.yaml&gt; params.yaml\nmake repro\n" in page
    assert str(project.root) not in page, "no path of this machine"


def test_the_report_of_a_detector_counts_blocks_of_the_backbone_only(detect_project: Project) -> None:
    page = (detect_project.root / "stages/evaluate/report.html").read_text(encoding="utf-8")
    assert "3 of 6 blocks while fine-tuning" in page


def test_the_report_counts_licences_and_duplicates(project: Project, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(project.root, root)
    test = read_manifest(root / "stages/split/test.json")
    licensed = test.images[0].model_copy(update={"license": "CC BY 4.0"})
    write_manifest(test.model_copy(update={"images": (licensed, *test.images[1:])}), root / "stages/split/test.json")
    metrics = root / "stages/split/metrics.json"
    duplicates = {"identical_pictures": 5, "near_duplicate_pairs": 6, "dropped": 7}
    metrics.write_text(json.dumps(tiny.read_json(metrics) | duplicates))
    evaluate(project.params, root)
    page = (root / "stages/evaluate/report.html").read_text(encoding="utf-8")
    for name, count in {
        "not stated": 23,
        "CC BY 4.0": 1,
        "identical to another picture": 5,
        "near-duplicate pairs, each kept in one split": 6,
        "left out, since a later split has the same picture": 7,
    }.items():
        assert f'<tr><th scope="row">{name}</th><td>{count}</td></tr>' in page


def test_the_last_line_has_the_result_and_a_second_run_the_same_bytes(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in project.root.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "stages").unlink()
    for path in (project.root / "stages").iterdir():
        (tmp_path / "stages").mkdir(exist_ok=True)
        if path.name != "evaluate":
            (tmp_path / "stages" / path.name).symlink_to(path)
    evaluate(project.params, tmp_path)
    assert "evaluate: test accuracy " in capsys.readouterr().out
    for name in ("metrics.json", "predictions.json", "report.html"):
        one, other = (root / "stages/evaluate" / name for root in (project.root, tmp_path))
        assert one.read_bytes() == other.read_bytes()


def test_a_missing_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"stages/split/train\.json: no such file; run the stage that writes it"):
        evaluate(tiny.make_params(), tmp_path)
