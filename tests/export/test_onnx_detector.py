"""The exported detector detects the evaluated one's boxes; a file that is not proven equal is removed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

import tiny
from conftest import Project
from headstart.base.errors import UserError
from headstart.engine.input_spec import Pixels, boxes_from_input
from headstart.engine.pixels import load_pixels, read_pixels
from headstart.export.onnx_detector import check_detector_parity, write_detector_model
from headstart.export.predictor import DetectorOutput, Predictor
from headstart.models.file import read_model_file
from headstart.params.root import ExportParams
from tiny import export


def test_the_evaluated_boxes_are_those_of_the_exported_model(detect_project: Project) -> None:
    """predictions.json of the evaluation, and the exported file on the same pictures, one by one and together."""
    root, model = detect_project.root, Predictor(detect_project.root / "stages/export")
    test = tiny.manifest(root, "split", "test")
    evaluated = tiny.read_json(root / "stages/evaluate/predictions.json")
    assert evaluated
    pixels = np.stack([read_pixels(root / image.file_name, model.input) for image in test.images])
    together = model.detector_output(pixels)
    for number, image in enumerate(test.images):
        alone = model.detector_output(pixels[number][None])
        np.testing.assert_allclose(alone.scores[0], together.scores[number], atol=1e-5)
        scores = [one["score"] for one in evaluated if one["image_id"] == image.id]
        difference = np.abs(np.array(scores)[:, None] - alone.scores[0]).min(1)
        # NMS at its limit depends on the last bit: one box of a hundred may be missing.
        assert (difference > 1e-4).sum() <= 1
        first = next(one for one in evaluated if one["image_id"] == image.id)
        corners = boxes_from_input(alone.boxes[0], image.width, image.height, model.input)
        x, y, width, height = first["bbox"]
        assert corners[0].tolist() == pytest.approx([x, y, x + width, y + height], abs=0.05)


def test_parity_is_written_down(detect_project: Project) -> None:
    parity = tiny.read_json(detect_project.root / "stages/export/parity.json")
    assert parity["pictures"] == 5
    assert parity["same_box"] == parity["boxes"]
    assert parity["largest_difference_in_pixels"] < 0.01


def export_changed(
    root: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[DetectorOutput], DetectorOutput]
) -> str:
    """The error line of an export whose ONNX model gives changed outputs."""
    output = Predictor.detector_output

    def changed(self: Predictor, pixels: Pixels) -> DetectorOutput:
        return change(output(self, pixels))

    # The file of the fixture is the same.
    monkeypatch.setattr("headstart.export.onnx_detector.write_onnx", lambda *_, **__: None)
    monkeypatch.setattr(Predictor, "detector_output", changed)
    metrics = root / "stages/evaluate/metrics.json"
    content = tiny.read_json(metrics)
    content["test"]["threshold"] = 0.06  # so that there are boxes to compare
    metrics.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        export(tiny.make_detect_params(), root)
    assert not (root / "stages/export/model.onnx").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda output: DetectorOutput(output.boxes + 2, output.scores, output.labels),
        lambda output: DetectorOutput(output.boxes, output.scores * 0.9, output.labels),
        lambda output: DetectorOutput(output.boxes, output.scores, 1 - output.labels),
        lambda output: DetectorOutput(output.boxes, output.scores * np.nan, output.labels),
    ],
    ids=["shifted", "lower score", "other label", "nan"],
)
def test_boxes_without_a_counterpart_fail_and_no_file_is_left(
    detect_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(detect_project.root, root)
    line = export_changed(root, monkeypatch, change)
    assert line.startswith("params.yaml: export.tolerance: 0.001: of ")
    assert "have no counterpart in the other's output within 1 pixel" in line


def test_a_box_at_the_limit_of_nms_may_be_missing(detect_project: Project, tmp_path: Path) -> None:
    """Ten by ten pixels each, the second 2.5 further: an IoU of 0.6, which is the limit; 3.5 further: 0.48."""

    def boxes(second: float, *scores: float) -> DetectorOutput:
        corners = np.array([[[0, 0, 10, 10], [second, 0, second + 10, 10]]], np.float32)
        return DetectorOutput(corners, np.array([scores], np.float32), np.zeros((1, 2), np.int64))

    def parity(second: float) -> dict[str, Any]:
        return check_detector_parity(folder, boxes(second, 0.9, 0), boxes(second, 0.9, 0.8), 0.5, 0.6, ExportParams())

    folder = tmp_path / "export"
    shutil.copytree(detect_project.root / "stages/export", folder)
    result = parity(2.5)
    assert (result["boxes"], result["same_box"], result["largest_difference_in_pixels"]) == (3, 2, 0)
    with pytest.raises(UserError, match="of 3 boxes of the PyTorch and the ONNX model, 1 have no counterpart"):
        parity(3.5)


def test_a_box_of_another_label_is_at_the_limit_only_of_nms_across_labels(
    detect_project: Project, tmp_path: Path
) -> None:
    corners = np.array([[[0, 0, 10, 10], [2.5, 0, 12.5, 10]]], np.float32)

    def output(*scores: float) -> DetectorOutput:
        return DetectorOutput(corners, np.array([scores], np.float32), np.array([[0, 1]]))

    def parity(across: bool) -> dict[str, Any]:
        both = (output(0.9, 0), output(0.9, 0.8))
        return check_detector_parity(folder, *both, 0.5, 0.6, ExportParams(), class_agnostic_nms=across)

    folder = tmp_path / "export"
    shutil.copytree(detect_project.root / "stages/export", folder)
    assert parity(True)["boxes"] == 3
    with pytest.raises(UserError, match="1 have no counterpart"):
        parity(False)


def test_the_exported_graph_suppresses_across_labels(detect_project: Project, tmp_path: Path) -> None:
    """Both exports of one network: across labels no two boxes of a picture overlap by more than the limit, 0.6."""
    tensors, spec = read_model_file(detect_project.root / "stages/train-head/model.safetensors")
    for name, tensor in tensors.items():  # every location is of both labels
        if name.endswith("cls_logits.bias"):
            tensor.fill_(0.5)
    test = tiny.manifest(detect_project.root, "split", "test").images
    pixels = load_pixels(test, detect_project.root, spec.input, "decode")
    most = {}
    for across in (False, True):
        folder = tmp_path / str(across)
        folder.mkdir()
        expected, nms_iou = write_detector_model(folder, tensors, spec, pixels, class_agnostic_nms=across)
        shutil.copyfile(detect_project.root / "stages/export/labels.json", folder / "labels.json")
        outputs = Predictor(folder).detector_output(pixels)
        # Not label by label: the last bit decides which of two boxes of nearly the same score comes first.
        np.testing.assert_allclose(outputs.scores, expected.scores, atol=1e-4)
        found = [torch.from_numpy(b[s > 0]) for b, s in zip(outputs.boxes, outputs.scores, strict=True)]
        overlaps = [box_iou(boxes, boxes).fill_diagonal_(0).max() for boxes in found]
        most[across] = max(map(float, overlaps))
        assert set(outputs.labels[outputs.scores > 0].tolist()) == {0, 1}
    assert most[True] <= nms_iou + 1e-5
    assert most[False] > 0.99
