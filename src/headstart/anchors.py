"""Boxes laid over a picture beforehand, and which of the true ones each of them answers for."""

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

NONE = Matcher.BELOW_LOW_THRESHOLD  # answers for no box
UNJUDGED = Matcher.BETWEEN_THRESHOLDS  # nearly answers for one


def lay(generator: AnchorGenerator | DefaultBoxGenerator, maps: list[Tensor], size: int) -> tuple[Tensor, list[int]]:
    """Corners (anchors, 4) in pixels, and how many lie on each of the maps; the same for every picture of one size."""
    pictures = ImageList(torch.zeros(1, 3, size, size), [(size, size)])
    (anchors,) = generator(pictures, maps)
    places = [each.shape[2] * each.shape[3] for each in maps]
    shapes = generator.num_anchors_per_location()
    return anchors, [number * shape for number, shape in zip(places, shapes, strict=True)]


def match(target: Tensor, anchors: Tensor, matcher: Matcher) -> Tensor:
    """Which box of one picture (its index in `target`) each anchor answers for, (anchors,); or NONE, or UNJUDGED.

    Args:
        target: (m, 5), label and corners; those of label -1 are none, and come last.
        anchors: corners (anchors, 4).
        matcher: of torchvision, with its limits of IoU.
    """
    boxes = target[target[:, 0] >= 0, 1:]
    if not len(boxes):
        return torch.full((len(anchors),), NONE, device=anchors.device)
    found: Tensor = matcher(box_iou(boxes, anchors))
    return found


def decode(coder: BoxCoder, changes: Tensor, boxes: Tensor) -> Tensor:
    """Changes (n, a, 4 k) of boxes, corners (a, 4) or each picture's own (n, a, 4) -> corners (n, a, k, 4)."""
    own = boxes.expand(changes.shape[0], -1, -1)  # len() would fix the batch of an exported model
    found: Tensor = coder.decode_single(changes.flatten(0, 1), own.flatten(0, 1))
    return found.reshape(-1, own.shape[1], changes.shape[2] // 4, 4)
