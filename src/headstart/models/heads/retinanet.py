"""RetinaNet head: layers, loss and box decoding, one prediction an anchor.

Source: Lin et al. 2017, arXiv 1708.02002, as torchvision implements it; the loss is torchvision's, computed for all
pictures at once.
"""

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from headstart.base import distributed
from headstart.engine.input_spec import Shape
from headstart.models.heads.anchors import IGNORED, AnchorHead, decode_boxes, generate_anchors, match_anchors

_CODER = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
_MATCHER = Matcher(0.5, 0.4, allow_low_quality_matches=True)


class RetinaNetDetectionHead(AnchorHead):
    """torchvision's RetinaNet layers with loss and box decoding.

    Attributes:
        use_giou: GIoU loss of the boxes, as torchvision's second version (v2) has it; False: L1 loss.
    """

    def __init__(self, layers: RetinaNetHead, anchors: Tensor, *, use_giou: bool = False) -> None:
        super().__init__(layers, anchors, nms_iou=0.5)
        self.use_giou = use_giou

    def loss(self, outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Focal loss of the classes, L1 or GIoU loss of the boxes; a scalar.

        Each picture's loss is divided by its number of positive anchors, then the mean over pictures is taken.

        Args:
            outputs: as `forward` returns them, in fp32.
            targets: (n, m, 5), label and xyxy; label -1: padding.
            class_weights: factor of each label's true boxes in the classification loss (labels,); None: 1.
        """
        logits, offsets = outputs[..., :-4], outputs[..., -4:]
        matched_index = match_anchors(targets, self.anchors, _MATCHER)
        is_positive = matched_index >= 0
        positives = is_positive.sum(1).clamp(min=1)
        picture, location = torch.where(is_positive)
        box_index = matched_index[picture, location]
        class_targets = torch.zeros_like(logits)
        class_targets[picture, location, targets[picture, box_index, 0].long()] = 1.0
        focal = sigmoid_focal_loss(logits, class_targets, reduction="none")
        if class_weights is not None:
            focal = focal * (1 + class_targets * (class_weights - 1))
        classification = (focal.sum(-1) * (matched_index != IGNORED)).sum(1) / positives
        predicted, true_boxes = offsets[picture, location], targets[picture, box_index, 1:]
        anchors = self.anchors[location]
        if self.use_giou:
            regression = generalized_box_iou_loss(_CODER.decode_single(predicted, anchors), true_boxes)
        else:
            regression = (predicted - _CODER.encode_single(true_boxes, anchors)).abs().sum(-1)
        total: Tensor = classification.sum() + (regression / positives[picture]).sum()
        return total / distributed.all_reduce_sum(len(outputs), shared=self.training)

    def decode(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (n, anchors, 4), xyxy in pixels, and scores (n, labels, anchors)."""
        boxes = decode_boxes(_CODER, outputs[..., -4:], self.anchors).squeeze(2)
        return boxes, outputs[..., :-4].sigmoid().transpose(1, 2)


def create_head(channels: int, labels: int, feature_maps: list[Tensor], shape: Shape) -> RetinaNetDetectionHead:
    """A randomly initialized head for feature maps of `channels` channels, the first of stride 8.

    Anchors have sides of 4, 5.04 and 6.35 strides, each in the aspect ratios 0.5, 1 and 2. `feature_maps` are those of
    a picture of that shape; only their shapes matter.
    """
    strides = [8 << level for level in range(len(feature_maps))]
    sizes = tuple(tuple(int(4 * stride * 2 ** (third / 3)) for third in range(3)) for stride in strides)
    generator = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(strides))
    anchors, _ = generate_anchors(generator, feature_maps, shape)
    return RetinaNetDetectionHead(RetinaNetHead(channels, 9, labels), anchors)
