"""The exam: both models on the same pictures, and facts that the report can stand on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from conftest import Project
from headstart import classify, coco, modelfile, pixels
from headstart.batches import outputs
from headstart.compute import prepare
from headstart.errors import UserError
from headstart.exam import evaluate
from headstart.params import TrainParams


@pytest.mark.parametrize(("stage", "name"), [("train-head", "head_only"), ("fine-tune", "fine_tuned")])
def test_each_model_answers_for_itself(project: Project, stage: str, name: str) -> None:
    """Accuracy and predictions, worked out again from the model's file."""
    tensors, card = modelfile.read(project.root / f"stages/{stage}/model.safetensors")
    test = tiny.manifest(project.root, "split", "test").images
    seen = pixels.load(test, project.root, card.input, "decode")
    compute = prepare(TrainParams(precision="fp32"), 0)
    logits = outputs(classify.build(tensors, card), seen, card.input, compute)
    said = logits.argmax(1)
    rows = tiny.read_json(project.root / "stages/evaluate/predictions.json")
    assert [row["file_name"] for row in rows] == [image.file_name for image in test]
    assert [row["label"] for row in rows] == [image.label for image in test]
    metrics = tiny.read_json(project.root / "stages/evaluate/metrics.json")
    figures = metrics["test" if name == "fine_tuned" else name]
    for row, number, own in zip(rows, said, logits, strict=True):
        if own.max() - own.min() > 0.05:  # head_only is examined in bf16, where the machine has it
            assert row[name]["predicted"] == card.labels[number]
    right = sum(row[name]["correct"] for row in rows)
    assert figures["accuracy"] == pytest.approx(right / 6, abs=1e-6)
    calibrated = (logits / figures["temperature"]).softmax(1)
    told = torch.tensor([[row[name]["probabilities"][label] for label in card.labels] for row in rows])
    np.testing.assert_allclose(told, calibrated, atol=1e-4 if name == "fine_tuned" else 0.05)


def test_figures_have_their_intervals(project: Project) -> None:
    metrics = tiny.read_json(project.root / "stages/evaluate/metrics.json")
    for model in ("test", "head_only"):
        figures = metrics[model]
        assert figures["pictures"] == 6
        assert 0 <= figures["accuracy_low"] <= figures["accuracy"] <= figures["accuracy_high"] <= 1
        assert set(figures["per_class"]) == {"blue", "red"}


def test_the_report_says_what_was_done(project: Project) -> None:
    page = (project.root / "stages/evaluate/report.html").read_text(encoding="utf-8")
    for said in ("blue or red: the report", tiny.TRUNK, "32 px (squash)", "3 of 6 blocks", "folder:data", "conv_stem"):
        assert said in page, said
    assert "mlflow.source.git.commit" in page
    assert "git checkout &lt;its commit&gt;\ncp &lt;its params.yaml&gt; params.yaml\nmake repro\n" in page
    assert str(project.root) not in page, "no path of this machine"


def test_the_report_counts_licences_and_duplicates(project: Project, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(project.root, root)
    test = coco.read(root / "stages/split/test.json")
    licensed = test.images[0].model_copy(update={"license": "CC BY 4.0"})
    coco.write(test.model_copy(update={"images": (licensed, *test.images[1:])}), root / "stages/split/test.json")
    metrics = root / "stages/split/metrics.json"
    found = {"identical_pictures": 5, "near_duplicate_pairs": 6, "dropped": 7}
    metrics.write_text(json.dumps(tiny.read_json(metrics) | found))
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


def test_the_last_lines_name_the_result(project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_no_model_to_examine(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"stages/split/train\.json: no such file; run the stage that writes it"):
        evaluate(tiny.make_params(), tmp_path)
