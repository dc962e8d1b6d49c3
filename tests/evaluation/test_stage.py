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
    """Accuracy and predictions, computed again from it: both models in fp32, whatever they were trained in."""
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
    for row, number in zip(rows, logits.argmax(1), strict=True):
        assert row[name]["predicted"] == spec.labels[number]
    correct = sum(row[name]["correct"] for row in rows)
    assert model_metrics["accuracy"] == pytest.approx(correct / 6, abs=1e-6)
    calibrated = (logits / model_metrics["temperature"]).softmax(1)
    written = torch.tensor([[row[name]["probabilities"][label] for label in spec.labels] for row in rows])
    np.testing.assert_allclose(written, calibrated, atol=1e-5)


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
        "3 of 6 blocks are as pretrained in the exported model",
        "folder:data",
        "conv_stem",
    ):
        assert text in page, text
    assert "mlflow.source.git.commit" in page
    assert "git checkout &lt;its commit&gt;\ngit apply &lt;its diff.patch, if it has one&gt;\n" in page
    assert "\ncp &lt;its params.yaml&gt; &lt;its data.dvc&gt; .\nmake repro\n" in page
    assert str(project.root) not in page, "no path of this machine"


def test_the_report_of_a_detector_counts_blocks_of_the_backbone_only(detect_project: Project) -> None:
    page = (detect_project.root / "stages/evaluate/report.html").read_text(encoding="utf-8")
    blocks = tiny.read_json(detect_project.root / "stages/fine-tune/blocks.json")
    frozen = [row for row in blocks if row["state"] == "frozen" and row["name"] not in ("pyramid", "head")]
    assert len(blocks) == 8
    assert f"{len(frozen)} of 6 blocks are as pretrained in the exported model" in page


def test_the_report_counts_licences_and_duplicates(project: Project, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(project.root, root)
    test = read_manifest(root / "stages/split/test.json")
    licensed = test.images[0].model_copy(update={"license": "CC BY 4.0"})
    write_manifest(test.model_copy(update={"images": (licensed, *test.images[1:])}), root / "stages/split/test.json")
    metrics = root / "stages/split/metrics.json"
    duplicates = {"identical_pictures": 5, "near_duplicate_pairs": 6, "dropped": 7}
    metrics.write_text(json.dumps(tiny.read_json(metrics) | duplicates))
    weights = root / "stages/weights/weights.json"
    weights.write_text(json.dumps(tiny.read_json(weights) | {"source": "timm/x", "license": "mit", "revision": "01ab"}))
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
    assert "timm/x, revision 01ab, licence mit, " in page


def keep_head(project: Project, root: Path) -> str:
    """A copy of the project in which no epoch of fine-tuning was better; the report after evaluating it anew."""
    shutil.copytree(project.root, root)
    stages = root / "stages"
    shutil.copyfile(stages / "train-head/model.safetensors", stages / "fine-tune/model.safetensors")
    path = stages / "fine-tune/metrics.json"
    path.write_text(json.dumps(tiny.read_json(path) | {"best_epoch": 0}))
    evaluate(project.params, root)
    return (stages / "evaluate/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("task", ["project", "detect_project"])
def test_a_fine_tuning_that_made_nothing_better_is_no_fine_tuned_model(
    task: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """One figure in both columns, and the first sentence is what happened."""
    project: Project = request.getfixturevalue(task)
    page = keep_head(project, tmp_path / "copy")
    metrics = tiny.read_json(tmp_path / "copy/stages/evaluate/metrics.json")
    before = tiny.read_json(project.root / "stages/evaluate/metrics.json")
    assert metrics["test"] == metrics["head_only"]
    rate = f"{project.params.fine_tune.lr / 3:.1e}"
    sentence = (
        "No epoch of fine-tuning beat the head alone; the head-only model was kept; "
        f"try a rate of {rate} (`headstart lr-find fine-tune` suggests a rate; val decides)."
    )
    assert metrics["kept_head"] == {"lr": project.params.fine_tune.lr}, "a number: dvc metrics diff stays narrow"
    assert "difference" not in metrics, "of a model from itself"
    assert f"<ul>\n<li>{sentence}</li>\n<li>" in page
    assert "<p>Fine-tuning was not kept: both columns are one model, the head-only one, on the " in page
    assert "fine-tuning changed" not in page
    assert "the fine-tuned model finds" not in page
    assert "The fine-tuned model predicts" not in page
    if metrics.get("class_agnostic_nms") == before.get("class_agnostic_nms"):
        assert metrics["head_only"] == before["head_only"]
    kept_before = tiny.read_json(project.root / "stages/fine-tune/metrics.json")["best_epoch"] == 0
    assert ("kept_head" in before) == kept_before
    page_before = (project.root / "stages/evaluate/report.html").read_text(encoding="utf-8")
    assert ("No epoch of fine-tuning" in page_before) == kept_before


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
