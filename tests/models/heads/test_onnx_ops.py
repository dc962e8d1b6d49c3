"""onnxruntime computes NMS and RoIAlign as torch does."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from headstart.models.heads import nms
from headstart.models.heads.onnx_ops import onnx_translation_table
from headstart.models.heads.roi_align import multiscale_roi_align
from models.heads.test_nms import random_boxes


class Nms(nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return nms.select_boxes(boxes, scores, 0.5, 0.05)


@pytest.mark.filterwarnings("ignore")
def test_onnx_selects_the_same(tmp_path: Path) -> None:
    """More boxes than go into NMS; another batch size than was exported."""
    boxes, scores = random_boxes(3, nms.TOPK_CANDIDATES + 200)
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        Nms().eval(),
        (boxes, scores),
        dynamo=True,
        verbose=False,
        input_names=["boxes", "scores"],
        dynamic_shapes={"boxes": {0: batch}, "scores": {0: batch}},
        custom_translation_table=onnx_translation_table(),
    )
    assert program is not None
    program.save(tmp_path / "nms.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "nms.onnx", providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"boxes": boxes[:2].numpy(), "scores": scores[:2].numpy()})
    for one, other in zip(outputs, Nms()(boxes[:2], scores[:2]), strict=True):
        np.testing.assert_array_equal(one, other.numpy())


class RoiAlign(nn.Module):
    def forward(self, feature_map: Tensor, coarse: Tensor, boxes: Tensor) -> Tensor:
        return multiscale_roi_align([feature_map, coarse], boxes, (8, 16))


@pytest.mark.filterwarnings("ignore")
def test_onnx_aligns_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    corners = torch.rand(2, 20, 2) * 200
    inputs = {
        "feature_map": torch.randn(2, 4, 40, 40),
        "coarse": torch.randn(2, 4, 20, 20),
        "boxes": torch.cat([corners, corners + torch.rand(2, 20, 2) * 300], -1),
    }
    program = torch.onnx.export(
        RoiAlign().eval(),
        tuple(inputs.values()),
        dynamo=True,
        verbose=False,
        input_names=list(inputs),
        custom_translation_table=onnx_translation_table(),
    )
    assert program is not None
    program.save(tmp_path / "align.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "align.onnx", providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    expected = RoiAlign()(*inputs.values())
    assert outputs.std() > 0.1
    np.testing.assert_allclose(outputs, expected.numpy(), atol=1e-4)
