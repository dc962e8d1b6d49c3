"""FCOS's head: what it says of each place of the feature maps, its loss, and the boxes it means.

Source: Tian et al. 2020, arXiv 2006.09214, as torchvision has it; the loss is torchvision's, all pictures at once.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxLinearCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from headstart import ranks
from headstart.anchors import lay

RADIUS = 1.5  # strides from a box's centre within which a place answers for it
_CODER = BoxLinearCoder(normalize_by_size=True)


class Fcos(nn.Module):
    """torchvision's layers, and the loss and the boxes of what they say.

    Attributes:
        overlap: IoU from which two boxes of a label are one.
        anchors: one square of a stride's size in the middle of each place; corners (places, 4).
        counts: places of each level.
    """

    overlap = 0.6
    anchors: Tensor

    def __init__(self, layers: FCOSHead, anchors: Tensor, counts: Sequence[int]) -> None:
        super().__init__()
        self.layers, self.counts = layers, counts
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, maps: list[Tensor], targets: Tensor | None = None) -> Tensor:
        """(n, places, labels + 5): logits, four distances in strides, a logit of centredness."""
        said = self.layers(maps)
        return torch.cat([said["cls_logits"], said["bbox_regression"], said["bbox_ctrness"]], -1)

    def loss(self, said: Tensor, targets: Tensor) -> Tensor:
        """Focal loss of the labels, GIoU loss of the boxes, cross entropy of the centredness; a scalar.

        Args:
            said: what `forward` gives, in fp32.
            targets: (n, m, 5), label and corners; label -1: no box.
        """
        logits, distances, centred = said[..., :-5], said[..., -5:-1], said[..., -1]
        matched = match(targets, self.anchors, self.counts)
        there = matched >= 0
        number = max(1, int(ranks.whole(there.sum(), shared=self.training)))
        picture, place = torch.where(there)
        labels, boxes = targets[..., 0].long(), targets[..., 1:]
        answer = matched[picture, place]
        wanted = torch.zeros_like(logits)
        wanted[picture, place, labels[picture, answer]] = 1.0
        classification = sigmoid_focal_loss(logits, wanted, reduction="sum")
        true, own = boxes[picture, answer], self.anchors[place]
        found = _CODER.decode(distances[picture, place], own)
        regression = generalized_box_iou_loss(found, true, reduction="sum")
        left, top, right, bottom = _CODER.encode(own, true).unbind(-1)
        sides = [torch.minimum(a, b) / torch.maximum(a, b) for a, b in ((left, right), (top, bottom))]
        middle = torch.sqrt(sides[0] * sides[1])
        centredness = F.binary_cross_entropy_with_logits(centred[picture, place], middle, reduction="sum")
        total: Tensor = (classification + regression + centredness) / number
        return total

    def decode(self, said: Tensor) -> tuple[Tensor, Tensor]:
        """Corners (n, places, 4) in pixels and scores (n, labels, places): the mean of label and centredness."""
        boxes: Tensor = _CODER.decode(said[..., -5:-1], self.anchors)
        scores = torch.sqrt(said[..., :-5].sigmoid() * said[..., -1:].sigmoid())
        return boxes, scores.transpose(1, 2)


def make(channels: int, labels: int, maps: list[Tensor], size: int) -> Fcos:
    """A new head for maps of `channels` channels, the first of stride 8."""
    sizes = tuple((8 << level,) for level in range(len(maps)))
    return Fcos(FCOSHead(channels, 1, labels), *lay(AnchorGenerator(sizes, ((1.0,),) * len(sizes)), maps, size))


def match(targets: Tensor, anchors: Tensor, counts: Sequence[int]) -> Tensor:
    """Which box (its index in `targets`) each place answers for, (n, places); -1: none.

    A place lies in its box, near the centre, and its level is the one for the box's size; of several the smallest box.
    """
    boxes = targets[:, None, :, 1:]
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    size = anchors[:, 2] - anchors[:, 0]
    x, y = (centres[:, axis, None] for axis in (0, 1))
    left, top, right, bottom = x - boxes[..., 0], y - boxes[..., 1], boxes[..., 2] - x, boxes[..., 3] - y
    smallest = torch.minimum(torch.minimum(left, top), torch.minimum(right, bottom))
    largest = torch.maximum(torch.maximum(left, top), torch.maximum(right, bottom))
    # The centre of a box is as far from a place as half the difference of the distances to its sides.
    offset = torch.maximum((left - right).abs(), (top - bottom).abs()) / 2
    lower, upper = size * 4, size * 8
    lower[: counts[0]] = 0
    upper[-counts[-1] :] = float("inf")
    fits = (offset < RADIUS * size[:, None]) & (smallest > 0)
    fits &= (largest > lower[:, None]) & (largest < upper[:, None]) & (targets[:, None, :, 0] >= 0)
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    value, index = (fits.float() * (1e8 - area)).max(-1)
    return torch.where(value < 1e-5, -1, index)
