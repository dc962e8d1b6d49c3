"""What is suppressed, by hand and against torchvision, and the same by onnxruntime."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from headstart import nms


def test_by_hand() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 10, 10]]])
    scores = torch.tensor([[[0.9, 0.8, 0.01, 0.0], [0.0, 0.0, 0.0, 0.7]]])
    found, sure, labels = nms.select(boxes, scores, 0.5, 0.05)
    assert sure[0, :3].tolist() == pytest.approx([0.9, 0.7, 0])
    assert labels[0, :2].tolist() == [0, 1], "another label's box may lie there"
    assert found[0, 0].tolist() == [0, 0, 10, 10]


def made(pictures: int, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(pictures, count, 2, generator=generator)
    boxes = torch.cat([corner, corner + 0.3 * torch.rand(pictures, count, 2, generator=generator)], -1)
    return boxes, torch.rand(pictures, 2, count, generator=generator)


def test_against_torchvision() -> None:
    boxes, scores = made(2, 300)
    found, sure, labels = nms.select(boxes, scores, 0.5, 0.05)
    for number in range(2):
        label, place = torch.where(scores[number] > 0.05)
        kept = batched_nms(boxes[number, place], scores[number, label, place], label, 0.5)[: nms.MOST]
        assert torch.equal(sure[number, : len(kept)], scores[number, label, place][kept])
        assert torch.equal(found[number, : len(kept)], boxes[number, place][kept])
        assert torch.equal(labels[number, : len(kept)], label[kept])


class Selecting(nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return nms.select(boxes, scores, 0.5, 0.05)


@pytest.mark.filterwarnings("ignore")
def test_onnx_selects_the_same(tmp_path: Path) -> None:
    """More boxes than are looked at; another batch than was exported."""
    boxes, scores = made(3, nms.CANDIDATES + 200)
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        Selecting().eval(),
        (boxes, scores),
        dynamo=True,
        verbose=False,
        input_names=["boxes", "scores"],
        dynamic_shapes={"boxes": {0: batch}, "scores": {0: batch}},
        custom_translation_table=nms.translation(),
    )
    assert program is not None
    program.save(tmp_path / "nms.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "nms.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {"boxes": boxes[:2].numpy(), "scores": scores[:2].numpy()})
    for one, other in zip(found, Selecting()(boxes[:2], scores[:2]), strict=True):
        np.testing.assert_array_equal(one, other.numpy())
