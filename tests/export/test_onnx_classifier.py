"""The exported classifier computes what the evaluated one computes; a file that is not proven equal is removed."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from conftest import Project
from headstart.base.arrays import Floats32
from headstart.base.errors import UserError
from headstart.engine.device import Compute
from headstart.engine.inference import run_inference
from headstart.engine.input_spec import Pixels
from headstart.engine.pixels import load_pixels, read_pixels
from headstart.export.onnx_classifier import check_classifier_parity
from headstart.export.predictor import ClassifierOutput, Predictor
from headstart.models import classifier
from headstart.models.backbone import create_backbone
from headstart.models.file import read_model_file
from headstart.params.root import ExportParams
from tiny import export

CPU = Compute(torch.device("cpu"), bf16=False)


@pytest.fixture
def root(project: Project, tmp_path: Path) -> Path:
    """A copy of the project, with an earlier export."""
    shutil.copytree(project.root, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def onnx_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting to ONNX takes seconds; the same network gives the same file, and it is there already."""
    monkeypatch.setattr("headstart.export.onnx_classifier.write_onnx", lambda *_, **__: None)


def torch_logits(project: Project) -> Floats32:
    tensors, spec = read_model_file(project.root / "stages/fine-tune/model.safetensors")
    test = tiny.manifest(project.root, "split", "test").images
    pixels = load_pixels(test, project.root, spec.input, "decode")
    logits: Floats32 = run_inference(classifier.build(tensors, spec), pixels, spec.input, CPU).numpy()
    return logits


def test_onnx_gives_the_pytorch_models_logits(project: Project) -> None:
    model = Predictor(project.root / "stages/export")
    test = tiny.manifest(project.root, "split", "test").images
    pixels = np.stack([read_pixels(project.root / image.file_name, model.input) for image in test])
    expected = torch_logits(project)
    for batch in (1, 4, 6):  # the batch size is free
        np.testing.assert_allclose(model.classifier_output(pixels[:batch]).logits, expected[:batch], atol=1e-5)
    temperature = tiny.read_json(project.root / "stages/export/labels.json")["temperature"]
    calibrated = torch.from_numpy(expected / temperature).softmax(1).numpy()
    np.testing.assert_allclose(model.classifier_output(pixels).probabilities, calibrated, atol=1e-5)
    assert model.classifier_output(pixels).probabilities.sum(1) == pytest.approx(np.ones(6))


def test_the_network_exported_is_the_one_plain_timm_runs(project: Project) -> None:
    tensors, spec = read_model_file(project.root / "stages/fine-tune/model.safetensors")
    plain = create_backbone(spec.backbone).eval()
    plain.load_state_dict({k.removeprefix("trunk."): t for k, t in tensors.items() if k.startswith("trunk.")})
    test = tiny.manifest(project.root, "split", "test").images
    pixels = load_pixels(test, project.root, spec.input, "decode")
    mean, std = (torch.tensor(value).reshape(1, 3, 1, 1) for value in (spec.input.mean, spec.input.std))
    with torch.no_grad():
        features = plain((torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2) / 255 - mean) / std)
        head = classifier.build(tensors, spec).head
        np.testing.assert_allclose(head(features).numpy(), torch_logits(project), atol=1e-5)
    assert json.loads((project.root / "stages/export/labels.json").read_text())["labels"] == list(spec.labels)


def test_parity_is_written_down(project: Project) -> None:
    parity = tiny.read_json(project.root / "stages/export/parity.json")
    assert (parity["pictures"], parity["same_label"], parity["tolerance"]) == (6, 6, 1e-3)
    assert 0 <= parity["largest_logit_difference"] < 1e-4


def test_the_evaluated_probabilities_are_those_of_the_exported_model(project: Project) -> None:
    """predictions.json of the evaluation, and the exported file on the same pictures."""
    model = Predictor(project.root / "stages/export")
    for row in tiny.read_json(project.root / "stages/evaluate/predictions.json"):
        pixels = read_pixels(project.root / row["file_name"], model.input)[None]
        (exported,) = model.classifier_output(pixels).probabilities
        evaluated = [row["fine_tuned"]["probabilities"][label] for label in model.labels]
        assert list(map(float, exported)) == pytest.approx(evaluated, abs=1e-5)


@pytest.mark.usefixtures("onnx_kept")
def test_a_difference_above_the_tolerance_fails_and_no_file_is_left(root: Path) -> None:
    (root / "stages/export/parity.json").unlink()
    with pytest.raises(UserError) as caught:
        export(tiny.make_params(export={"tolerance": 1e-12}), root)
    line = str(caught.value)
    assert line.startswith("params.yaml: export.tolerance: 1e-12: the ONNX model differs by ")
    assert "agrees on 6 of 6 labels" in line
    assert "\n" not in line
    assert not (root / "stages/export/model.onnx").exists(), "the one before neither"
    assert not (root / "stages/export/parity.json").exists()


@pytest.mark.usefixtures("onnx_kept")
def test_another_predicted_label_fails(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the exporter had translated an operator wrongly."""
    output = Predictor.classifier_output
    monkeypatch.setattr(
        Predictor,
        "classifier_output",
        lambda self, pixels: output(self, pixels)._replace(logits=output(self, pixels)[0][:, ::-1]),
    )
    with pytest.raises(UserError, match="agrees on 0 of 6 labels"):
        export(tiny.make_params(export={"tolerance": 100}), root)
    assert not (root / "stages/export/model.onnx").exists()


def parity_of(root: Path, outputs: list[list[float]], expected: list[list[float]], tolerance: float = 1e-3) -> Any:
    logits = np.array(outputs, np.float32)
    return check_classifier_parity(
        root / "stages/export",
        ClassifierOutput(logits, logits),
        np.array(expected, np.float32),
        ExportParams(tolerance=tolerance),
    )


def test_two_labels_that_tie_are_no_failure(root: Path) -> None:
    """The two highest logits of PyTorch are 0.0004 apart, and the outputs differ by 0.0003: rounding has the choice."""
    parity = parity_of(root, [[0, 1.0001, 1.0002], [0, 3, 1]], [[0, 1.0004, 1], [0, 3, 1]])
    assert (parity["pictures"], parity["same_label"], parity["ties"]) == (2, 1, 1)
    assert parity["largest_logit_difference"] == pytest.approx(3e-4, rel=1e-2)
    assert parity_of(root, [[0, 3, 1]], [[0, 3, 1]])["ties"] == 0
    assert parity_of(root, [[2.0]], [[2.0]])["same_label"] == 1, "a single label"


def test_labels_far_apart_are_no_tie_however_large_the_tolerance(root: Path) -> None:
    with pytest.raises(UserError, match="agrees on 0 of 1 labels"):
        parity_of(root, [[1.0, 1.03]], [[1.03, 1.0]], tolerance=1)


@pytest.mark.usefixtures("onnx_kept")
def test_a_logit_that_is_nan_fails(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Predictor.classifier_output

    def broken(self: Predictor, pixels: Pixels) -> ClassifierOutput:
        logits, probabilities = output(self, pixels)
        # The predicted label stays: NaN counts as the largest.
        return ClassifierOutput(np.where(logits == logits.max(1, keepdims=True), np.nan, logits), probabilities)

    monkeypatch.setattr(Predictor, "classifier_output", broken)
    with pytest.raises(UserError, match="differs by nan in a logit and agrees on 6 of 6"):
        export(tiny.make_params(), root)
    assert not (root / "stages/export/model.onnx").exists()
