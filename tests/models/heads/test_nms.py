"""NMS: what is suppressed, by hand and against torchvision."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from headstart.models.heads import nms


def test_by_hand() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 10, 10]]])
    scores = torch.tensor([[[0.9, 0.8, 0.01, 0.0], [0.0, 0.0, 0.0, 0.7]]])
    kept_boxes, kept_scores, labels = nms.select_boxes(boxes, scores, 0.5, 0.05)
    assert kept_scores[0, :3].tolist() == pytest.approx([0.9, 0.7, 0])
    assert labels[0, :2].tolist() == [0, 1], "a box of another label is not suppressed"
    assert kept_boxes[0, 0].tolist() == [0, 0, 10, 10]


def random_boxes(pictures: int, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(pictures, count, 2, generator=generator)
    boxes = torch.cat([corner, corner + 0.3 * torch.rand(pictures, count, 2, generator=generator)], -1)
    return boxes, torch.rand(pictures, 2, count, generator=generator)


def test_against_torchvision() -> None:
    boxes, scores = random_boxes(2, 300)
    kept_boxes, kept_scores, labels = nms.select_boxes(boxes, scores, 0.5, 0.05)
    for number in range(2):
        label, index = torch.where(scores[number] > 0.05)
        kept = batched_nms(boxes[number, index], scores[number, label, index], label, 0.5)[: nms.DETECTIONS_PER_IMAGE]
        assert torch.equal(kept_scores[number, : len(kept)], scores[number, label, index][kept])
        assert torch.equal(kept_boxes[number, : len(kept)], boxes[number, index][kept])
        assert torch.equal(labels[number, : len(kept)], label[kept])
