"""SSD's head: what it says of each default box, its loss, and the boxes it means.

Source: Liu et al. 2016, arXiv 1512.02325, as torchvision has it; the loss is torchvision's, all pictures at once.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder, SSDMatcher

from headstart import ranks
from headstart.anchors import decode, match

NEGATIVES = 3  # default boxes of nothing that are learned from, the worst ones, for each that answers for a box
_CODER = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
_MATCHER = SSDMatcher(0.5)


class Ssd(nn.Module):
    """torchvision's layers, and the loss and the boxes of what they say.

    Attributes:
        overlap: IoU from which two boxes of a label are one.
        anchors: corners (anchors, 4).
    """

    anchors: Tensor

    def __init__(self, layers: nn.Module, anchors: Tensor, overlap: float) -> None:
        super().__init__()
        self.layers, self.overlap = layers, overlap
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, maps: list[Tensor], targets: Tensor | None = None) -> Tensor:
        """(n, anchors, labels + 5): logits, the first one's label is `nothing`, and how the box differs."""
        said = self.layers(maps)
        return torch.cat([said["cls_logits"], said["bbox_regression"]], -1)

    def loss(self, said: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy of the labels, and smooth L1 loss of the boxes; a scalar.

        Args:
            said: what `forward` gives, in fp32.
            targets: (n, m, 5), label and corners; label -1: no box.
        """
        logits, offsets = said[..., :-4], said[..., -4:]
        matched = torch.stack([match(each, self.anchors, _MATCHER) for each in targets])
        there = matched >= 0
        labels = torch.where(there, targets[..., 0].long().gather(1, matched.clamp(min=0)) + 1, 0)
        each = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        worst = each.detach().masked_fill(there, -torch.inf).argsort(dim=1, descending=True).argsort(dim=1)
        learned = there | (worst < NEGATIVES * there.sum(1, keepdim=True))
        picture, place = torch.where(there)
        true = _CODER.encode_single(targets[picture, matched[picture, place], 1:], self.anchors[place])
        total = each[learned].sum() + F.smooth_l1_loss(offsets[picture, place], true, reduction="sum")
        return total / ranks.whole(there.sum(), shared=self.training).clamp(min=1)

    def decode(self, said: Tensor) -> tuple[Tensor, Tensor]:
        """Corners (n, anchors, 4) in pixels and scores (n, labels, anchors)."""
        boxes = decode(_CODER, said[..., -4:], self.anchors).squeeze(2)
        return boxes, said[..., :-4].softmax(-1)[..., 1:].transpose(1, 2)
