"""The export stage: what it leaves, and int8."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

import tiny
from conftest import Project
from headstart.base.errors import UserError
from headstart.engine.input_spec import Pixels
from headstart.engine.pixels import read_pixels
from headstart.export.comparison import metric_value
from headstart.export.predictor import Predictor
from headstart.export.saved_predictions import read_predictions
from headstart.serve.model_info import load_model_info
from tiny import export


@pytest.fixture
def root(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project with its model.onnx, which is not exported again: that takes seconds."""
    monkeypatch.setattr("headstart.export.onnx_classifier.write_onnx", lambda *_, **__: None)
    shutil.copytree(project.root, tmp_path / "copy")
    return tmp_path / "copy"


def test_the_folder_is_complete(project: Project) -> None:
    folder = project.root / "stages/export"
    assert sorted(path.name for path in folder.iterdir()) == [
        "answers.json",
        "labels.json",
        "model.onnx",
        "model_card.md",
        "parity.json",
        "speed.json",
    ], "no file of weights beside it, no half-written one"
    labels = tiny.read_json(folder / "labels.json")
    assert labels["labels"] == ["blue", "red"]
    assert labels["input"]["resize"] == "squash"


def test_no_model_to_export(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"fine-tune/model\.safetensors: no such file; run the stage that writes it"):
        export(tiny.make_params(), tmp_path)


# --- int8 ---


def test_int8_of_a_classifier_is_smaller_and_its_cost_is_written_down(root: Path) -> None:
    folder = root / "stages/export"
    before = (folder / "model.onnx").stat().st_size
    export(tiny.make_params(export={"quantize": "int8", "max_drop": 0.5}), root)
    int8 = tiny.read_json(folder / "parity.json")["int8"]
    assert int8["bytes_fp32"] == before
    assert int8["bytes"] == (folder / "model.onnx").stat().st_size < before
    assert int8["calibrated_on"] == 12
    speed = tiny.read_json(folder / "speed.json")
    assert min(speed["milliseconds"], speed["pictures_per_second"], speed["fp32"]["milliseconds"]) > 0
    assert (speed["bytes"], speed["fp32"]["bytes"]) == (int8["bytes"], before)
    graph = onnx.load(folder / "model.onnx").graph
    weights = {i.name: i.data_type for i in graph.initializer if len(i.dims) == 4 and i.dims[2] > 1}
    assert weights
    assert set(weights.values()) == {onnx.TensorProto.INT8}
    model = Predictor(folder)
    images = tiny.manifest(root, "split", "test").images
    pixels = np.stack([read_pixels(root / image.file_name, model.input) for image in images])
    output = model.classifier_output(pixels)
    correct = [model.labels[n] == image.label for n, image in zip(output.logits.argmax(1), images, strict=True)]
    assert int8["accuracy"] == pytest.approx(np.mean(correct), abs=1e-6)
    assert output.probabilities.sum(1) == pytest.approx(np.ones(6))
    card = (folder / "model_card.md").read_text(encoding="utf-8")
    assert "| int8 quantization | " in card
    assert f"test accuracy {int8['accuracy']:.3f} instead of {int8['accuracy_fp32']:.3f}" in card
    assert load_model_info(folder, []).metrics[0].note.startswith("of the fp32 model; int8 ")
    assert str(root).encode() not in (folder / "model.onnx").read_bytes()


def test_int8_of_a_detector_is_smaller_and_its_cost_is_written_down(detect_project: Project, tmp_path: Path) -> None:
    root, folder = tmp_path / "copy", tmp_path / "copy/stages/export"
    shutil.copytree(detect_project.root, root)
    before = (folder / "model.onnx").stat().st_size
    export(tiny.make_detect_params(export={"quantize": "int8", "max_drop": 1}), root)
    parity, speed = (tiny.read_json(folder / f"{name}.json") for name in ("parity", "speed"))
    int8 = parity["int8"]
    assert (int8["bytes_fp32"], int8["bytes"]) == (before, (folder / "model.onnx").stat().st_size)
    assert int8["bytes"] < before
    evaluated = tiny.read_json(root / "stages/evaluate/metrics.json")["test"]["AP"]
    assert int8["AP_fp32"] == pytest.approx(evaluated, abs=1e-3)
    assert parity["same_box"] == parity["boxes"], "of the fp32 model"
    graph = onnx.load(folder / "model.onnx").graph
    types = {i.name: i.data_type for i in graph.initializer}
    dequantized = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in types}
    quantized = [n.input[1] in dequantized for n in graph.node if n.op_type == "Conv"]
    assert quantized.count(False) == 15, "three on each of five levels: labels, corners, centerness"
    assert quantized.count(True) > 15
    predictions = read_predictions(folder / "answers.json")
    test = tiny.manifest(root, "split", "test")
    assert metric_value(test, predictions, "AP") == pytest.approx(int8["AP"], abs=1e-6), "of the file that is left"
    notes = {metric.name: metric.note for metric in load_model_info(folder, []).metrics}
    assert notes["AP"].startswith("of the fp32 model; int8 ")
    assert notes["AP at IoU 0.5"] == "of the fp32 model"
    card = (folder / "model_card.md").read_text(encoding="utf-8")
    assert f"test AP {int8['AP']:.3f} instead of {int8['AP_fp32']:.3f}; {speed['milliseconds']} ms" in card


def copy_instead(model: Path, out: Path, _: Pixels) -> None:
    shutil.copy(model, out)


def test_int8_that_costs_too_much_accuracy_is_not_left(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.export.stage.quantize", copy_instead)
    accuracies = iter((0.9, 0.88))  # of the fp32 model, and as if int8 cost two points
    monkeypatch.setattr("headstart.export.stage._metric_and_size", lambda *_: {"accuracy": next(accuracies)})
    with pytest.raises(UserError) as caught:
        export(tiny.make_params(export={"quantize": "int8"}), root)
    assert str(caught.value).startswith("params.yaml: export.max_drop: 0.01: int8 costs ")
    assert "\n" not in str(caught.value)
    assert not list((root / "stages/export").glob("*.onnx"))


def test_int8_that_costs_too_much_ap_is_not_left(
    detect_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(detect_project.root, root)
    monkeypatch.setattr("headstart.export.stage.quantize", copy_instead)
    values = iter((0.5, 0.48))
    monkeypatch.setattr("headstart.export.comparison.metric_value", lambda *_: next(values))
    with pytest.raises(
        UserError, match=r"export\.max_drop: 0\.01: int8 costs 0\.0200 of test AP \(0\.5000 to 0\.4800\)"
    ):
        export(tiny.make_detect_params(export={"quantize": "int8"}), root)
    assert not list((root / "stages/export").glob("*.onnx"))
