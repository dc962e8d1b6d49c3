"""The exported detector finds what the examined one finds, and `predict` says it in pixels of the picture."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from typer.testing import CliRunner

import tiny
from conftest import Project
from headstart import pixels
from headstart.cli import app
from headstart.errors import UserError
from headstart.export import export
from headstart.predict import Boxes, Model


def test_the_file_stands_alone_and_says_what_it_takes(detect_project: Project) -> None:
    folder = detect_project.root / "stages/export"
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape[1:]) == ("pixels", "tensor(uint8)", [96, 96, 3])
    assert [given.name for given in session.get_outputs()] == ["boxes", "scores", "labels"]
    assert tiny.read_json(folder / "labels.json")["labels"] == ["blue", "red"]
    card = (folder / "model_card.md").read_text(encoding="utf-8")
    assert "fcos on test_efficientnet" in card
    assert "Finds in a picture, with a box round each: blue, red." in card


def test_the_exported_model_finds_what_was_examined(detect_project: Project) -> None:
    """predictions.json of the exam, and the exported file on the same pictures; one by one and together."""
    root, model = detect_project.root, Model(detect_project.root / "stages/export")
    test = tiny.manifest(root, "split", "test")
    told = tiny.read_json(root / "stages/evaluate/predictions.json")
    assert told
    seen = np.stack([pixels.decode(root / image.file_name, model.input) for image in test.images])
    together = model.boxes(seen)
    for number, image in enumerate(test.images):
        alone = model.boxes(seen[number][None])
        np.testing.assert_allclose(alone.scores[0], together.scores[number], atol=1e-5)
        scores = [one["score"] for one in told if one["image_id"] == image.id]
        apart = np.abs(np.array(scores)[:, None] - alone.scores[0]).min(1)
        # Whether two boxes overlap too much to be two may hang on a last bit: one of a hundred may be there or not.
        assert (apart > 1e-4).sum() <= 1
        first = next(one for one in told if one["image_id"] == image.id)
        corners = pixels.from_input(alone.boxes[0], image.width, image.height, model.input)
        x, y, width, height = first["bbox"]
        assert corners[0].tolist() == pytest.approx([x, y, x + width, y + height], abs=0.05)


def test_parity_is_written_down(detect_project: Project) -> None:
    parity = tiny.read_json(detect_project.root / "stages/export/parity.json")
    assert parity["pictures"] == 4
    assert parity["same_box"] == parity["boxes"]
    assert parity["largest_difference_in_pixels"] < 0.01


def broken(root: Path, monkeypatch: pytest.MonkeyPatch, change: Any) -> str:
    boxes = Model.boxes
    monkeypatch.setattr("headstart.onnxfile.write", lambda *_, **__: None)  # the file of the fixture will do
    monkeypatch.setattr(Model, "boxes", lambda self, seen: change(boxes(self, seen)))
    metrics = root / "stages/evaluate/metrics.json"
    data = tiny.read_json(metrics)
    data["test"]["threshold"] = 0.06  # so that there are boxes to compare
    metrics.write_text(json.dumps(data))
    with pytest.raises(UserError) as caught:
        export(tiny.make_detect_params(), root)
    assert not (root / "stages/export/model.onnx").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: Boxes(found.boxes + 2, found.scores, found.labels),
        lambda found: Boxes(found.boxes, found.scores * 0.9, found.labels),
        lambda found: Boxes(found.boxes, found.scores, 1 - found.labels),
        lambda found: Boxes(found.boxes, found.scores * np.nan, found.labels),
    ],
    ids=["elsewhere", "less sure", "other label", "no number"],
)
def test_what_cannot_be_proven_fails_and_is_not_left(
    detect_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(detect_project.root, root)
    line = broken(root, monkeypatch, change)
    assert line.startswith("params.yaml: export.tolerance: 0.001: of ")
    assert "have no like in the other's answer within 1 pixel" in line


def test_predict_says_boxes_in_pixels_of_the_picture(detect_project: Project, tmp_path: Path) -> None:
    root = detect_project.root
    folder = tmp_path / "export"
    shutil.copytree(root / "stages/export", folder)
    labels = tiny.read_json(folder / "labels.json") | {"threshold": 0.06}
    (folder / "labels.json").write_text(json.dumps(labels))
    picture, bad = root / "data/images/00.png", tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    done = CliRunner().invoke(app, ["predict", "--model", str(folder), "--json", str(picture), str(bad)])
    first, second = json.loads(done.output)
    assert done.exit_code == 1
    assert second["error"]
    assert second["boxes"] == []
    assert first["boxes"]
    model = Model(folder)
    raw = model.boxes(pixels.decode(picture, model.input)[None])
    x1, y1, x2, y2 = first["boxes"][0]["box"]
    assert [x1 * 96 / 120, y1 * 96 / 80, x2 * 96 / 120, y2 * 96 / 80] == pytest.approx(
        raw.boxes[0, 0].tolist(), abs=0.01
    )
    out = tmp_path / "out"
    said = CliRunner().invoke(app, ["predict", "--model", str(folder), "--draw", str(out), str(picture)])
    assert said.exit_code == 0
    assert f"{picture}: {first['boxes'][0]['label']} " in said.output
    with Image.open(out / "00.jpg") as drawn:
        assert drawn.size == (480, 320)
