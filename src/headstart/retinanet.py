"""RetinaNet's head: what it says of each anchor, its loss, and the boxes it means. Source: Lin et al. 2017."""

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from headstart import ranks
from headstart.anchors import UNJUDGED, decode, lay, match

_CODER = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
_MATCHER = Matcher(0.5, 0.4, allow_low_quality_matches=True)


class RetinaNet(nn.Module):
    """torchvision's layers, and the loss and the boxes of what they say.

    Attributes:
        overlap: IoU from which two boxes of a label are one.
        anchors: corners (anchors, 4).
        giou: whether boxes are judged by their GIoU, and not by how much they differ (torchvision's second version).
    """

    overlap = 0.5
    anchors: Tensor

    def __init__(self, layers: RetinaNetHead, anchors: Tensor, *, giou: bool = False) -> None:
        super().__init__()
        self.layers, self.giou = layers, giou
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, maps: list[Tensor], targets: Tensor | None = None) -> Tensor:
        """(n, anchors, labels + 4): logits, and how the box differs from its anchor."""
        said = self.layers(maps)
        return torch.cat([said["cls_logits"], said["bbox_regression"]], -1)

    def loss(self, said: Tensor, targets: Tensor) -> Tensor:
        """Focal loss of the labels, L1 or GIoU loss of the boxes, each picture's by its own matches; a scalar.

        Args:
            said: what `forward` gives, in fp32.
            targets: (n, m, 5), label and corners; label -1: no box.
        """
        logits, offsets = said[..., :-4], said[..., -4:]
        matched = torch.stack([match(each, self.anchors, _MATCHER) for each in targets])
        there = matched >= 0
        number = there.sum(1).clamp(min=1)
        picture, place = torch.where(there)
        answer = matched[picture, place]
        wanted = torch.zeros_like(logits)
        wanted[picture, place, targets[picture, answer, 0].long()] = 1.0
        focal = sigmoid_focal_loss(logits, wanted, reduction="none").sum(-1)
        classification = (focal * (matched != UNJUDGED)).sum(1) / number
        said_here, boxes, own = offsets[picture, place], targets[picture, answer, 1:], self.anchors[place]
        if self.giou:
            regression = generalized_box_iou_loss(_CODER.decode_single(said_here, own), boxes)
        else:
            regression = (said_here - _CODER.encode_single(boxes, own)).abs().sum(-1)
        sums: Tensor = classification.sum() + (regression / number[picture]).sum()
        return sums / ranks.whole(len(said), shared=self.training)

    def decode(self, said: Tensor) -> tuple[Tensor, Tensor]:
        """Corners (n, anchors, 4) in pixels and scores (n, labels, anchors)."""
        boxes = decode(_CODER, said[..., -4:], self.anchors).squeeze(2)
        return boxes, said[..., :-4].sigmoid().transpose(1, 2)


def make(channels: int, labels: int, maps: list[Tensor], size: int) -> RetinaNet:
    """A new head for maps of `channels` channels, the first of stride 8.

    Anchors are four strides large and 1.26 and 1.59 times that, each flat, square and upright.
    """
    strides = [8 << level for level in range(len(maps))]
    sizes = tuple(tuple(int(4 * stride * 2 ** (third / 3)) for third in range(3)) for stride in strides)
    anchors, _ = lay(AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(strides)), maps, size)
    return RetinaNet(RetinaNetHead(channels, 9, labels), anchors)
