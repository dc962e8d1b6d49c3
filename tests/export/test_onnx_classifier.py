"""The exported classifier computes what the evaluated one computes; a file that is not proven equal is removed."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
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
from headstart.export.labels_json import rules_json
from headstart.export.onnx_classifier import check_classifier_parity
from headstart.export.predictor import ClassifierOutput, Predictor
from headstart.export.quantize import find_float_nodes
from headstart.metrics.conformal import PredictionSets
from headstart.models import classifier
from headstart.models.answer_rules import AnswerRules, read_answer_rules
from headstart.models.backbone import create_backbone
from headstart.models.block_features import BlockFeatures
from headstart.models.file import read_model_file
from headstart.params.root import ExportParams
from tiny import export

CPU = Compute(torch.device("cpu"))


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


def parity_of(
    root: Path, outputs: list[list[float]], expected: list[list[float]], tolerance: float = 1e-3, strange: float = 0.0
) -> Any:
    logits = np.array(outputs, np.float32)
    strangeness = np.full((len(expected), 1), 0.5)
    return check_classifier_parity(
        root / "stages/export",
        ClassifierOutput(logits, logits, np.full(len(outputs), 0.5 + strange, np.float32)),
        np.concatenate([expected, strangeness], axis=1).astype(np.float32),
        ExportParams(tolerance=tolerance),
    )


def test_two_labels_that_tie_are_no_failure(root: Path) -> None:
    """The two highest logits of PyTorch are 0.0004 apart, and the outputs differ by 0.0003: rounding has the choice."""
    parity = parity_of(root, [[0, 1.0001, 1.0002], [0, 3, 1]], [[0, 1.0004, 1], [0, 3, 1]])
    assert (parity["pictures"], parity["same_label"], parity["ties"]) == (2, 1, 1)
    assert parity["largest_logit_difference"] == pytest.approx(3e-4, rel=1e-2)
    assert parity_of(root, [[0, 3, 1]], [[0, 3, 1]])["ties"] == 0
    assert parity_of(root, [[2.0]], [[2.0]])["same_label"] == 1, "a single label"


def test_another_strangeness_fails(root: Path) -> None:
    parity = parity_of(root, [[0, 3]], [[0, 3]], strange=5e-4)
    assert parity["largest_strangeness_difference"] == pytest.approx(5e-4, rel=1e-2)
    with pytest.raises(
        UserError, match=r"export\.tolerance: 0\.001: the ONNX model differs by 0\.002 in the strangeness"
    ):
        parity_of(root, [[0, 3]], [[0, 3]], strange=2e-3)
    assert not (root / "stages/export/model.onnx").exists()


def test_strangeness_is_in_the_graph_and_that_of_the_evaluation(project: Project) -> None:
    """The bank's own arithmetic on features of plain timm, and the file's on the same pictures."""
    tensors, spec = read_model_file(project.root / "stages/fine-tune/model.safetensors")
    rules = read_answer_rules(project.root / "stages/evaluate/unknown.safetensors")
    network = classifier.build(tensors, spec)
    test = tiny.manifest(project.root, "split", "test").images
    pixels = load_pixels(test, project.root, spec.input, "decode")
    pooled = run_inference(BlockFeatures(network.trunk, rules.plan.levels), pixels, spec.input, CPU).double().numpy()
    features = np.concatenate([pooled[:, start:stop] for start, stop in rules.plan.parts], axis=1)
    for batch in (1, 4):
        output = Predictor(project.root / "stages/export").classifier_output(pixels[:batch])
        assert output.strangeness.shape == (batch,)
        np.testing.assert_allclose(output.strangeness, rules.bank.strangeness(features[:batch]), atol=1e-4)
    parity = tiny.read_json(project.root / "stages/export/parity.json")
    assert 0 <= parity["largest_strangeness_difference"] < 1e-4


def test_int8_leaves_the_strangeness_in_float(project: Project) -> None:
    """What it is computed from and the logits are not: no matrix product, and no node that is quantized."""
    graph = onnx.load(project.root / "stages/export/model.onnx").graph
    producer = {name: node for node in graph.node for name in node.output}

    def behind(output: str) -> set[str]:
        found: set[str] = set()
        waiting = [output]
        while waiting:
            node = producer.get(waiting.pop())
            if node is not None and node.name not in found:
                found.add(node.name)
                waiting += node.input
        return found

    own = behind("strangeness") - behind("logits")
    assert own
    assert own <= set(find_float_nodes(graph))


def test_labels_json_has_the_rules(project: Project) -> None:
    """Six validation pictures give no threshold, which is null then; sets that hold all labels are null too."""
    written = tiny.read_json(project.root / "stages/export/labels.json")
    assert written["unknown"] == {
        "threshold": None,
        "method": "distance to the 5th nearest training picture",
        "kept": 0.95,
    }
    rules = read_answer_rules(project.root / "stages/evaluate/unknown.safetensors")
    expected = rules.sets.thresholds.tolist() if rules.sets.thresholds.any() else None
    assert written["prediction_sets"] == {"confidence": 0.9, "thresholds": expected, "method": "LAC, by label"}
    for thresholds, shown in (([0.25, 0.0], [0.25, 0.0]), ([0.0, 0.0], None)):
        other = rules_json(AnswerRules(rules.bank, rules.plan, 0.5, PredictionSets(0.8, np.array(thresholds))))
        assert other["unknown"] == written["unknown"] | {"threshold": 0.5}
        assert other["prediction_sets"] == {"confidence": 0.8, "thresholds": shown, "method": "LAC, by label"}


def test_labels_far_apart_are_no_tie_however_large_the_tolerance(root: Path) -> None:
    with pytest.raises(UserError, match="agrees on 0 of 1 labels"):
        parity_of(root, [[1.0, 1.03]], [[1.03, 1.0]], tolerance=1)


@pytest.mark.usefixtures("onnx_kept")
def test_a_logit_that_is_nan_fails(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Predictor.classifier_output

    def broken(self: Predictor, pixels: Pixels) -> ClassifierOutput:
        logits, *others = output(self, pixels)
        # The predicted label stays: NaN counts as the largest.
        return ClassifierOutput(np.where(logits == logits.max(1, keepdims=True), np.nan, logits), *others)

    monkeypatch.setattr(Predictor, "classifier_output", broken)
    with pytest.raises(UserError, match="differs by nan in a logit and agrees on 6 of 6"):
        export(tiny.make_params(), root)
    assert not (root / "stages/export/model.onnx").exists()
