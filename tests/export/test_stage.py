"""The export stage: what it leaves, and int8."""

import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from sklearn.metrics import brier_score_loss, log_loss

import tiny
from conftest import Project
from headstart.base.errors import UserError
from headstart.engine.input_spec import Pixels
from headstart.engine.pixels import read_pixels
from headstart.export.predictor import Predictor
from headstart.export.saved_predictions import read_predictions
from headstart.export.weighted_metric import match_test_set
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
    before, images = (folder / "model.onnx").stat().st_size, tiny.manifest(root, "split", "test").images
    fp32_model = Predictor(folder)
    pixels = np.stack([read_pixels(root / image.file_name, fp32_model.input) for image in images])
    fp32, fp32_parity = fp32_model.classifier_output(pixels), tiny.read_json(folder / "parity.json")
    export(tiny.make_params(export={"quantize": "int8", "max_drop": 1}), root)
    parity = tiny.read_json(folder / "parity.json")
    int8 = parity["int8"]
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
    head = {i.name: i.data_type for i in graph.initializer if ".network.head." in i.name and len(i.dims) == 2}
    assert set(head.values()) == {onnx.TensorProto.FLOAT}, "by these names it is left in float"
    model = Predictor(folder)
    output = model.classifier_output(pixels)
    correct, was_correct = (
        [model.labels[n] == image.label for n, image in zip(of.logits.argmax(1), images, strict=True)]
        for of in (output, fp32)
    )
    assert (int8["accuracy"], int8["accuracy_fp32"]) == pytest.approx(
        (np.mean(correct), np.mean(was_correct)), abs=1e-6
    )
    assert int8["accuracy_low"] < int8["accuracy"] < int8["accuracy_high"]
    numbers = [model.labels.index(image.label or "") for image in images]
    for key, of in (("log_loss", output), ("log_loss_fp32", fp32)):
        assert int8[key] == pytest.approx(log_loss(numbers, of.probabilities, labels=[0, 1]), abs=1e-4)
    assert int8["brier_score"] == pytest.approx(brier_score_loss(numbers, output.probabilities[:, 1]), abs=1e-4)
    assert 0 <= int8["ece_perfect_low"] <= int8["ece_perfect_high"] <= 1
    difference = int8["difference"]
    assert difference["accuracy"] == pytest.approx(int8["accuracy"] - int8["accuracy_fp32"], abs=1e-5)
    assert difference["accuracy_low"] < difference["accuracy"] < difference["accuracy_high"]
    assert difference["log_loss"] == pytest.approx(int8["log_loss"] - int8["log_loss_fp32"], abs=1e-5)
    assert output.probabilities.sum(1) == pytest.approx(np.ones(6))
    # What parity.json says is of the file that is left; the proof of the fp32 file is kept beside it.
    assert parity["fp32"] == {key: fp32_parity[key] for key in parity["fp32"]}
    largest = np.abs(output.probabilities - fp32.probabilities).max()
    assert parity["largest_probability_difference"] == pytest.approx(largest, rel=0.01)
    assert largest > 100 * parity["fp32"]["largest_logit_difference"]
    same = int((output.logits.argmax(1) == fp32.logits.argmax(1)).sum())
    assert (parity["pictures"], parity["same_label"]) == (6, same)
    card = (folder / "model_card.md").read_text(encoding="utf-8")
    assert "| int8 quantization | " in card
    assert (
        f"test accuracy {int8['accuracy']:.3f} ({int8['accuracy_low']:.3f} to {int8['accuracy_high']:.3f}) instead "
        f"of {int8['accuracy_fp32']:.3f}, a difference of {difference['accuracy']:.3f} "
        f"({difference['accuracy_low']:.3f} to {difference['accuracy_high']:.3f})"
    ) in card.replace("; only 6 units", "")
    assert (
        f"| this int8 file against the fp32 model | 6 test pictures: another label for {6 - same}, largest difference "
        f"of a probability {parity['largest_probability_difference']} |"
    ) in card
    unknown = int8["unknown"]
    assert (unknown["kept"], unknown["fpr95"], unknown["pictures"]) == (1, 1, 192), "six pictures give no threshold"
    assert unknown["kept_low"] < 1
    assert unknown["fpr95_low"] < 1
    assert 0 <= unknown["auroc_low"] < unknown["auroc_high"] <= 1
    assert tiny.read_json(folder / "labels.json")["unknown"]["threshold"] is None
    assert (
        f"| none of these, this int8 file | keeps 1.000 ({unknown['kept_low']:.3f} to 1.000; only 6 units) of the test "
        f"pictures, takes 1.000 ({unknown['fpr95_low']:.3f} to 1.000) of 192 generated pictures, which show nothing, "
        f"for a label (AUROC {unknown['auroc']:.3f} ("
    ) in card
    assert "; no picture is turned away: a threshold that keeps 95 % needs 19 pictures " in card
    assert "from 6 validation pictures (at the fp32 model's it would keep 1.000) |" in card
    assert "ONNX against PyTorch" not in card, "of a file that is not there"
    assert "| test accuracy (fp32) | " in card
    served = load_model_info(folder, []).metrics[0]
    assert (served.value, served.low, served.high) == tuple(int8[f"accuracy{end}"] for end in ("", "_low", "_high"))
    assert served.note == f"fp32: {int8['accuracy_fp32']:.3f}"
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
    assert parity["fp32"]["same_box"] == parity["fp32"]["boxes"], "of the fp32 model"
    assert parity["same_box"] <= parity["boxes"]
    assert int8["AP_low"] <= int8["AP"] <= int8["AP_high"]
    difference = int8["difference"]
    assert difference["AP"] == pytest.approx(int8["AP"] - int8["AP_fp32"], abs=2e-6)
    assert difference["AP_low"] < difference["AP"] < difference["AP_high"]
    graph = onnx.load(folder / "model.onnx").graph
    types = {i.name: i.data_type for i in graph.initializer}
    dequantized = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in types}
    quantized = [n.input[1] in dequantized for n in graph.node if n.op_type == "Conv"]
    assert quantized.count(False) == 15, "three on each of five levels: labels, corners, centerness"
    assert quantized.count(True) > 15
    predictions = read_predictions(folder / "answers.json")
    test = tiny.manifest(root, "split", "test")
    assert match_test_set(test, predictions).stats[0] == pytest.approx(int8["AP"], abs=1e-6), "of the file that is left"
    notes = {metric.name: metric.note for metric in load_model_info(folder, []).metrics}
    assert notes["AP"] == f"fp32: {int8['AP_fp32']:.3f}"
    assert notes["AP at IoU 0.5"] == "of the fp32 model"
    card = (folder / "model_card.md").read_text(encoding="utf-8")
    assert f"test AP {int8['AP']:.3f} ({int8['AP_low']:.3f} to {int8['AP_high']:.3f}; {int8['AP_note']})" in card
    assert int8["AP_note"] == "only 4 units", "of five pictures one has no box"
    assert f" instead of {int8['AP_fp32']:.3f}, a difference of {difference['AP']:.3f} (" in card
    assert f"; {difference['AP_note']}); {speed['milliseconds']} ms a picture instead of" in card
    assert f"of {parity['boxes']} boxes of both above the threshold in {parity['pictures']} test pictures " in card
    assert "ONNX against PyTorch" not in card, "of a file that is not there"


def copy_instead(model: Path, out: Path, _: Pixels) -> None:
    shutil.copy(model, out)


def test_int8_whose_cost_six_pictures_cannot_show_is_not_left(
    root: Path, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quantized file is the fp32 file here: no figure differs, and so few pictures still prove nothing."""
    monkeypatch.setattr("headstart.export.stage.quantize", copy_instead)
    with pytest.raises(UserError) as caught:
        export(tiny.make_params(export={"quantize": "int8"}), root)
    assert re.fullmatch(
        r"params\.yaml: export\.max_drop: 0\.03: int8 may cost up to (0\.\d+) of test accuracy "
        r"\((\d\.\d+) to \2; 95 % interval of the difference -\1 to \1, on \d test pictures\); "
        r"give max_drop: 0\.\d+, or about \d+ test pictures, or export\.quantize: none",
        str(caught.value),
    ), str(caught.value)
    assert not list((root / "stages/export").glob("*.onnx"))
    limit = re.search(r"give max_drop: (0\.\d+)", str(caught.value))
    assert limit
    shutil.copytree(project.root, tmp_path / "again")
    export(tiny.make_params(export={"quantize": "int8", "max_drop": float(limit[1])}), tmp_path / "again")
    assert list((tmp_path / "again/stages/export").glob("*.onnx"))
