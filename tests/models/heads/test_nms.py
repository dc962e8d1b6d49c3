"""NMS: what is suppressed, by hand and against torchvision."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import batched_nms
from torchvision.ops import nms as torchvision_nms

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


def test_across_labels_by_hand() -> None:
    """Cards that lie apart, the first one with three labels, at one place and at two that overlap."""
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [1, 0, 11, 10]]])
    scores = torch.tensor([[[0.9, 0.1, 0.2, 0.0], [0.8, 0.7, 0.6, 0.1], [0.0, 0.0, 0.3, 0.85]]])
    kept_boxes, kept_scores, labels = nms.select_boxes(boxes, scores, 0.5, 0.05, class_agnostic=True)
    assert kept_scores[0].tolist() == pytest.approx([0.9, 0.6, 0, 0])
    assert labels[0, :2].tolist() == [0, 1]
    assert kept_boxes[0, :2].tolist() == [[0, 0, 10, 10], [20, 20, 30, 30]]
    within = nms.select_boxes(boxes, scores, 0.5, 0.05)[1]
    assert (within > 0).sum() == 6, "two labels of the first card at one place, one beside it, three of the second"


def test_across_labels_against_torchvision() -> None:
    """torchvision's nms of each box with its best label; the most boxes that come out are counted after it."""
    boxes, scores = random_boxes(2, 800)
    for most in (20, nms.DETECTIONS_PER_IMAGE):
        kept_boxes, kept_scores, labels = nms.select_boxes(
            boxes, scores, 0.5, 0.05, max_boxes=most, class_agnostic=True
        )
        for number in range(2):
            best, label = scores[number].max(0)
            kept = torchvision_nms(boxes[number], best, 0.5)
            kept = kept[best[kept] > 0.05][:most]
            assert len(kept) == most
            assert torch.equal(kept_scores[number], best[kept])
            assert torch.equal(kept_boxes[number], boxes[number][kept])
            assert torch.equal(labels[number], label[kept])


def test_across_labels_changes_nothing_of_a_single_label() -> None:
    boxes, scores = random_boxes(1, 300)
    both = [nms.select_boxes(boxes, scores[:, :1], 0.5, 0.05, class_agnostic=across) for across in (False, True)]
    for one, other in zip(*both, strict=True):
        assert torch.equal(one, other)
