"""Whether annotated boxes of different labels exclude each other: NMS across labels may then drop the lower-scoring."""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from pycocotools import mask

from headstart.base.manifest import Annotation, Manifest

_ROWS = 500  # boxes compared at once with all others of a picture: thousands of boxes need no large matrix


def overlapping_share(manifests: Iterable[Manifest], iou: float) -> float:
    """The share of the boxes that overlap a box of another label in their picture by more than an IoU.

    Crowds are left out. Without a box the share is 0.
    """
    overlapping = boxes = 0
    for manifest in manifests:
        by_image: dict[int, list[Annotation]] = defaultdict(list)
        for annotation in manifest.annotations:
            if not annotation.iscrowd:
                by_image[annotation.image_id].append(annotation)
        boxes += sum(map(len, by_image.values()))
        overlapping += sum(_count_overlapping(of_image, iou) for of_image in by_image.values())
    return overlapping / boxes if boxes else 0.0


def _count_overlapping(annotations: list[Annotation], iou: float) -> int:
    """How many boxes of one picture overlap one of another label."""
    labels = np.array([annotation.category_id for annotation in annotations])
    if (labels == labels[0]).all():
        return 0
    boxes = np.array([annotation.bbox for annotation in annotations], np.float64)
    count = 0
    for start in range(0, len(boxes), _ROWS):
        rows = slice(start, start + _ROWS)
        overlaps = np.asarray(mask.iou(boxes[rows], boxes, [0] * len(boxes))) > iou
        count += int((overlaps & (labels[rows, None] != labels)).any(axis=1).sum())
    return count
