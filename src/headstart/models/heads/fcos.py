"""FCOS head: layers, loss and box decoding for anchor-free detection, one prediction a location of a feature map.

Source: Tian et al. 2020, arXiv 2006.09214, as torchvision implements it; the loss is torchvision's, computed for all
pictures at once.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxLinearCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from headstart.base import distributed
from headstart.engine.input_spec import Shape
from headstart.models.heads.anchors import generate_anchors

CENTER_SAMPLING_RADIUS = 1.5  # strides from a box's center within which a location is positive
# Distances, in strides, that a new head predicts everywhere: about the mean of the targets, so that its first boxes
# overlap true ones. torchvision begins at 0, where half of them have no area, and its ReLU no gradient.
INITIAL_DISTANCE = 4.0
_CODER = BoxLinearCoder(normalize_by_size=True)


class FcosDetectionHead(nn.Module):
    """torchvision's FCOS layers with loss and box decoding.

    Attributes:
        nms_iou: IoU above which NMS drops the lower-scoring of two boxes of a class.
        anchors: a square of one stride around each location, (locations, 4), xyxy in pixels.
        anchors_per_level: locations of each level.
    """

    nms_iou = 0.6
    anchors: Tensor

    def __init__(self, layers: FCOSHead, anchors: Tensor, anchors_per_level: Sequence[int]) -> None:
        super().__init__()
        self.layers, self.anchors_per_level = layers, anchors_per_level
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, feature_maps: list[Tensor], targets: Tensor | None = None) -> Tensor:
        """Outputs (n, locations, labels + 5): class logits, four distances in strides, a center-ness logit."""
        outputs = self.layers(feature_maps)
        return torch.cat([outputs["cls_logits"], outputs["bbox_regression"], outputs["bbox_ctrness"]], -1)

    def loss(self, outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Focal loss of the classes, GIoU loss of the boxes, binary cross entropy of the center-ness; a scalar.

        Args:
            outputs: as `forward` returns them, in fp32.
            targets: (n, m, 5), label and xyxy; label -1: padding.
            class_weights: factor of each label's true boxes in the classification loss (labels,); None: 1.
        """
        logits, distances, centerness = outputs[..., :-5], outputs[..., -5:-1], outputs[..., -1]
        matched_index = match_locations(targets, self.anchors, self.anchors_per_level)
        is_positive = matched_index >= 0
        positives = distributed.all_reduce_sum(is_positive.sum(), shared=self.training).clamp(min=1)
        picture, location = torch.where(is_positive)
        labels, boxes = targets[..., 0].long(), targets[..., 1:]
        box_index = matched_index[picture, location]
        class_targets = torch.zeros_like(logits)
        class_targets[picture, location, labels[picture, box_index]] = 1.0
        focal = sigmoid_focal_loss(logits, class_targets, reduction="none")
        if class_weights is not None:
            focal = focal * (1 + class_targets * (class_weights - 1))
        classification = focal.sum()
        true_boxes, anchors = boxes[picture, box_index], self.anchors[location]
        predicted_boxes = _CODER.decode(distances[picture, location], anchors)
        regression = generalized_box_iou_loss(predicted_boxes, true_boxes, reduction="sum")
        left, top, right, bottom = _CODER.encode(anchors, true_boxes).unbind(-1)
        ratios = [torch.minimum(a, b) / torch.maximum(a, b) for a, b in ((left, right), (top, bottom))]
        center_targets = torch.sqrt(ratios[0] * ratios[1])
        center = F.binary_cross_entropy_with_logits(centerness[picture, location], center_targets, reduction="sum")
        total: Tensor = (classification + regression + center) / positives
        return total

    def decode(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (n, locations, 4), xyxy in pixels, and scores (n, labels, locations).

        A score is the geometric mean of class probability and center-ness.
        """
        boxes: Tensor = _CODER.decode(outputs[..., -5:-1], self.anchors)
        scores = torch.sqrt(outputs[..., :-5].sigmoid() * outputs[..., -1:].sigmoid())
        return boxes, scores.transpose(1, 2)


def create_head(channels: int, labels: int, feature_maps: list[Tensor], shape: Shape) -> FcosDetectionHead:
    """A randomly initialized head for feature maps of `channels` channels, the first of stride 8.

    `feature_maps` are those of a picture of that shape; only their shapes matter.
    """
    sizes = tuple((8 << level,) for level in range(len(feature_maps)))
    generator = AnchorGenerator(sizes, ((1.0,),) * len(sizes))
    layers = FCOSHead(channels, 1, labels)
    nn.init.constant_(layers.regression_head.bbox_reg.bias, INITIAL_DISTANCE)
    return FcosDetectionHead(layers, *generate_anchors(generator, feature_maps, shape))


def match_locations(targets: Tensor, anchors: Tensor, anchors_per_level: Sequence[int]) -> Tensor:
    """For each location the index in `targets` of its ground truth box, (n, locations); -1: background.

    A location is positive for a box that it lies in, near whose center it is (center sampling), and for whose size
    its level is; of several such boxes it takes the smallest.
    """
    boxes = targets[:, None, :, 1:]
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    stride = anchors[:, 2] - anchors[:, 0]
    x, y = (centers[:, axis, None] for axis in (0, 1))
    left, top, right, bottom = x - boxes[..., 0], y - boxes[..., 1], boxes[..., 2] - x, boxes[..., 3] - y
    nearest_side = torch.minimum(torch.minimum(left, top), torch.minimum(right, bottom))
    farthest_side = torch.maximum(torch.maximum(left, top), torch.maximum(right, bottom))
    # A location's distance from the box's center is half the difference of its distances from opposite sides.
    center_offset = torch.maximum((left - right).abs(), (top - bottom).abs()) / 2
    lower, upper = stride * 4, stride * 8
    lower[: anchors_per_level[0]] = 0
    upper[-anchors_per_level[-1] :] = float("inf")
    is_match = (center_offset < CENTER_SAMPLING_RADIUS * stride[:, None]) & (nearest_side > 0)
    is_match &= (farthest_side > lower[:, None]) & (farthest_side < upper[:, None]) & (targets[:, None, :, 0] >= 0)
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    value, index = (is_match.float() * (1e8 - area)).max(-1)
    return torch.where(value < 1e-5, -1, index)
