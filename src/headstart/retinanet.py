"""RetinaNet's head: what it says of each anchor, its loss, and the boxes it means. Source: Lin et al. 2017."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import box_iou, sigmoid_focal_loss

OVERLAP = 0.5  # IoU from which two boxes of a label are one
SHAPES = 9  # anchors of a place: three sizes, three proportions
_CODER = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
_MATCHER = Matcher(0.5, 0.4, allow_low_quality_matches=True)


def make_head(channels: int, labels: int) -> nn.Module:
    """Maps of `channels` channels -> torchvision's answers."""
    head: nn.Module = RetinaNetHead(channels, SHAPES, labels)
    return head


def make_anchors(strides: Sequence[int]) -> AnchorGenerator:
    """Four strides large and 1.26 and 1.59 times that, each flat, square and upright."""
    sizes = tuple(tuple(int(4 * stride * 2 ** (third / 3)) for third in range(3)) for stride in strides)
    return AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(strides))


def answers(head: nn.Module, maps: list[Tensor]) -> Tensor:
    """(n, anchors, labels + 4): logits, and how the box differs from its anchor."""
    said = head(maps)
    return torch.cat([said["cls_logits"], said["bbox_regression"]], -1)


def loss(said: Tensor, targets: Tensor, anchors: Tensor, counts: Sequence[int]) -> Tensor:
    """Focal loss of the labels and L1 loss of the boxes, each picture's by its own matches; a scalar.

    Args:
        said: `answers`, in fp32.
        targets: (n, m, 5), label and corners; label -1: no box.
        anchors: (anchors, 4).
        counts: of no use here.
    """
    logits, offsets = said[..., :-4], said[..., -4:]
    matched = torch.stack([_match(each, anchors) for each in targets])
    there = matched >= 0
    number = there.sum(1).clamp(min=1)
    picture, place = torch.where(there)
    answer = matched[picture, place]
    wanted = torch.zeros_like(logits)
    wanted[picture, place, targets[picture, answer, 0].long()] = 1.0
    focal = sigmoid_focal_loss(logits, wanted, reduction="none").sum(-1)
    classification = (focal * (matched != Matcher.BETWEEN_THRESHOLDS)).sum(1) / number
    true = _CODER.encode_single(targets[picture, answer, 1:], anchors[place])
    regression = ((offsets[picture, place] - true).abs().sum(-1) / number[picture]).sum()
    total: Tensor = (classification.sum() + regression) / len(said)
    return total


def _match(target: Tensor, anchors: Tensor) -> Tensor:
    """Which box each anchor answers for; -1: none, -2: nearly one, not judged."""
    boxes = target[target[:, 0] >= 0, 1:]  # those that are there come first
    if not len(boxes):
        return torch.full((len(anchors),), Matcher.BELOW_LOW_THRESHOLD, device=anchors.device)
    found: Tensor = _MATCHER(box_iou(boxes, anchors))
    return found


def decode(said: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Corners (n, anchors, 4) in pixels and scores (n, labels, anchors)."""
    count = said.shape[0]  # len() would fix the batch of an exported model
    boxes = _CODER.decode_single(said[..., -4:].flatten(0, 1), anchors.repeat(count, 1))
    return boxes.reshape(count, -1, 4), said[..., :-4].sigmoid().transpose(1, 2)
