"""Anchor boxes: generation, matching with ground truth boxes, decoding of box regression."""

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from headstart.engine.input_spec import Shape

UNMATCHED = Matcher.BELOW_LOW_THRESHOLD  # matches no ground truth box
IGNORED = Matcher.BETWEEN_THRESHOLDS  # overlaps one, but too little for a match: neither positive nor negative


class AnchorHead(nn.Module):
    """torchvision's layers that predict class logits and a box regression for each anchor.

    Attributes:
        nms_iou: IoU above which NMS drops the lower-scoring of two boxes of a class.
        anchors: (anchors, 4), xyxy in pixels.
    """

    anchors: Tensor

    def __init__(self, layers: nn.Module, anchors: Tensor, nms_iou: float) -> None:
        super().__init__()
        self.layers, self.nms_iou = layers, nms_iou
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, feature_maps: list[Tensor], targets: Tensor | None = None) -> Tensor:
        """Outputs (n, anchors, classes + 4): class logits, and the box relative to its anchor."""
        outputs = self.layers(feature_maps)
        return torch.cat([outputs["cls_logits"], outputs["bbox_regression"]], -1)


def generate_anchors(
    generator: AnchorGenerator | DefaultBoxGenerator, feature_maps: list[Tensor], shape: Shape
) -> tuple[Tensor, list[int]]:
    """Anchors (a, 4), xyxy in pixels, and how many lie on each feature map; the same for every picture.

    Args:
        generator: torchvision's.
        feature_maps: of a picture of that shape; only their shapes matter.
        shape: of the input.
    """
    pictures = ImageList(torch.zeros(1, 3, *shape), [shape])
    (anchors,) = generator(pictures, feature_maps)
    locations = [feature_map.shape[2] * feature_map.shape[3] for feature_map in feature_maps]
    per_location = generator.num_anchors_per_location()
    return anchors, [count * number for count, number in zip(locations, per_location, strict=True)]


def match_anchors(targets: Tensor, anchors: Tensor, matcher: Matcher) -> Tensor:
    """For each anchor of each picture the index in `targets` of its ground truth box, or UNMATCHED, or IGNORED.

    Args:
        targets: (n, m, 5), label and xyxy; rows of label -1 are padding, and come last.
        anchors: xyxy, (a, 4) for all pictures or (n, a, 4) for each its own.
        matcher: torchvision's, with its IoU thresholds.

    Returns:
        indices (n, a).
    """
    per_picture = anchors.expand(len(targets), -1, -1)
    return torch.stack([_match_picture(t, a, matcher) for t, a in zip(targets, per_picture, strict=True)])


def _match_picture(targets: Tensor, anchors: Tensor, matcher: Matcher) -> Tensor:
    boxes = targets[targets[:, 0] >= 0, 1:]
    if not len(boxes):
        return torch.full((len(anchors),), UNMATCHED, device=anchors.device)
    matched_index: Tensor = matcher(box_iou(boxes, anchors))
    return matched_index


def with_background(class_weights: Tensor) -> Tensor:
    """The weights of labels (labels,) after that of a class for the background, 1: (labels + 1,)."""
    return torch.cat([class_weights.new_ones(1), class_weights])


def decode_boxes(coder: BoxCoder, regression: Tensor, reference_boxes: Tensor) -> Tensor:
    """Box regression (n, a, 4 k) relative to reference boxes -> boxes (n, a, k, 4), xyxy in pixels.

    `reference_boxes` are xyxy, (a, 4) for all pictures or (n, a, 4) for each its own.
    """
    references = reference_boxes.expand(regression.shape[0], -1, -1)  # len() would fix an exported model's batch size
    boxes: Tensor = coder.decode_single(regression.flatten(0, 1), references.flatten(0, 1))
    return boxes.reshape(-1, references.shape[1], regression.shape[2] // 4, 4)
