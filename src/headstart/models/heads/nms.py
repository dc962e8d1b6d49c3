"""Non-maximum suppression, within each class or over all, with fixed output shapes.

One operator does it, which torch runs and ONNX has.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

TOPK_CANDIDATES = 1000  # highest-scoring boxes of a picture that go into NMS
DETECTIONS_PER_IMAGE = 100  # boxes of a picture that come out; as many as COCO evaluates


def select_boxes(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    score_threshold: float,
    *,
    max_boxes: int = DETECTIONS_PER_IMAGE,
    topk: int = TOPK_CANDIDATES,
    class_agnostic: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The highest-scoring boxes of each picture after NMS within each class, or over all classes.

    Shapes do not depend on the values, so that torch.export takes it: rows that hold no box have score 0.

    Args:
        boxes: (n, a, 4), xyxy.
        scores: (n, labels, a), 0..1.
        iou_threshold: of two boxes that overlap more, the lower-scoring one is dropped, if they are of one class.
        score_threshold: only higher scores count.
        max_boxes: boxes of a picture that are returned.
        topk: boxes of a picture that go into NMS, by their highest score.
        class_agnostic: each box has only the class of its highest score, and drops boxes of other classes too.

    Returns:
        boxes (n, k, 4), scores (n, k) in descending order, and labels (n, k); k is at most `max_boxes`.
    """
    if boxes.shape[1] > topk:
        best = scores.amax(1).topk(topk).indices
        boxes = boxes.gather(1, best.unsqueeze(-1).expand(-1, -1, 4))
        scores = scores.gather(2, best.unsqueeze(1).expand(-1, scores.shape[1], -1))
    best_label = None
    if class_agnostic and scores.shape[1] > 1:
        scores, best_label = scores.max(1, keepdim=True)
    kept = register_suppress_op()(boxes, scores, iou_threshold, score_threshold).flatten(1)
    top_scores, index = kept.topk(min(max_boxes, kept.shape[1]))
    top_boxes = boxes.gather(1, (index % boxes.shape[1]).unsqueeze(-1).expand(-1, -1, 4))
    labels = index // boxes.shape[1] if best_label is None else best_label.squeeze(1).gather(1, index)
    return top_boxes, top_scores, labels


@cache
def register_suppress_op() -> Callable[[Tensor, Tensor, float, float], Tensor]:
    """The operator headstart::suppress: boxes (n, a, 4), scores (n, labels, a) and thresholds of IoU and score.

    It returns the scores, 0 for what is suppressed.
    """
    operator = torch.library.custom_op("headstart::suppress", _suppress, mutates_args=())
    operator.register_fake(lambda boxes, scores, iou_threshold, score_threshold: torch.empty_like(scores))
    return operator


def _suppress(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float) -> Tensor:
    from torchvision.ops import batched_nms

    out = torch.zeros_like(scores)
    for picture in range(len(scores)):
        labels, index = torch.where(scores[picture] > score_threshold)
        kept = batched_nms(boxes[picture, index], scores[picture, labels, index], labels, iou_threshold)
        out[picture, labels[kept], index[kept]] = scores[picture, labels[kept], index[kept]]
    return out
