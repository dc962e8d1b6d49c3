"""SSD head: layers, loss and box decoding, one prediction a default box (anchor).

Source: Liu et al. 2016, arXiv 1512.02325, as torchvision implements it; the loss is torchvision's, computed for all
pictures at once.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder, SSDMatcher

from headstart.base import distributed
from headstart.models.heads.anchors import AnchorHead, decode_boxes, match_anchors, with_background

NEG_TO_POS_RATIO = 3  # hard negative mining: so many background anchors for each positive one, those of highest loss
_CODER = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
_MATCHER = SSDMatcher(0.5)


class SsdDetectionHead(AnchorHead):
    """torchvision's SSD layers with loss and box decoding; the first class is the background."""

    def loss(self, outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Cross entropy of the classes with hard negative mining, smooth L1 loss of the boxes; a scalar.

        Args:
            outputs: as `forward` returns them, in fp32.
            targets: (n, m, 5), label and xyxy; label -1: padding.
            class_weights: factor of each label's true boxes in the classification loss (labels,); None: 1.
        """
        logits, offsets = outputs[..., :-4], outputs[..., -4:]
        matched_index = match_anchors(targets, self.anchors, _MATCHER)
        is_positive = matched_index >= 0
        # 0 is background
        labels = torch.where(is_positive, targets[..., 0].long().gather(1, matched_index.clamp(min=0)) + 1, 0)
        weights = None if class_weights is None else with_background(class_weights)
        # Flat: of (n, labels, anchors) it would be nll_loss2d, which has no deterministic implementation on CUDA.
        flat = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), weight=weights, reduction="none")
        cross_entropy = flat.reshape(labels.shape)
        negatives = cross_entropy.detach().masked_fill(is_positive, -torch.inf)
        rank = negatives.argsort(dim=1, descending=True).argsort(dim=1)
        sampled = is_positive | (rank < NEG_TO_POS_RATIO * is_positive.sum(1, keepdim=True))
        picture, location = torch.where(is_positive)
        true_boxes = targets[picture, matched_index[picture, location], 1:]
        box_targets = _CODER.encode_single(true_boxes, self.anchors[location])
        regression = F.smooth_l1_loss(offsets[picture, location], box_targets, reduction="sum")
        total = cross_entropy[sampled].sum() + regression
        return total / distributed.all_reduce_sum(is_positive.sum(), shared=self.training).clamp(min=1)

    def decode(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (n, anchors, 4), xyxy in pixels, and scores (n, labels, anchors)."""
        boxes = decode_boxes(_CODER, outputs[..., -4:], self.anchors).squeeze(2)
        return boxes, outputs[..., :-4].softmax(-1)[..., 1:].transpose(1, 2)
