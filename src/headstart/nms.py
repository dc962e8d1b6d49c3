"""Which of a detector's boxes stay: non-maximum suppression as one operation that torch runs and ONNX knows."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

CANDIDATES = 1000  # boxes of a picture that are looked at, the surest ones
MOST = 100  # boxes of a picture that are given; as many as COCO looks at


def select(
    boxes: Tensor, scores: Tensor, iou: float, least: float, *, most: int = MOST, candidates: int = CANDIDATES
) -> tuple[Tensor, Tensor, Tensor]:
    """The surest boxes of each picture, none of them overlapping a surer one of its class.

    Shapes do not depend on what is in the pictures, so that torch.export takes it: what is not there has score 0.

    Args:
        boxes: corners (n, a, 4).
        scores: (n, labels, a), 0..1.
        iou: boxes of one class that overlap more are one.
        least: scores below are none.
        most: boxes of a picture that are given.
        candidates: boxes of a picture that are looked at.

    Returns:
        boxes (n, k, 4), scores (n, k), falling, and labels (n, k); k is at most `most`.
    """
    if boxes.shape[1] > candidates:
        best = scores.amax(1).topk(candidates).indices
        boxes = boxes.gather(1, best.unsqueeze(-1).expand(-1, -1, 4))
        scores = scores.gather(2, best.unsqueeze(1).expand(-1, scores.shape[1], -1))
    kept = operation()(boxes, scores, iou, least).flatten(1)
    found, place = kept.topk(min(most, kept.shape[1]))
    chosen = boxes.gather(1, (place % boxes.shape[1]).unsqueeze(-1).expand(-1, -1, 4))
    return chosen, found, place // boxes.shape[1]


@cache
def operation() -> Callable[[Tensor, Tensor, float, float], Tensor]:
    """Boxes (n, a, 4), scores (n, labels, a), iou, least -> the scores with 0 for what is suppressed."""
    made = torch.library.custom_op("headstart::suppress", _suppress, mutates_args=())
    made.register_fake(lambda boxes, scores, iou, least: torch.empty_like(scores))
    return made


def _suppress(boxes: Tensor, scores: Tensor, iou: float, least: float) -> Tensor:
    from torchvision.ops import batched_nms

    out = torch.zeros_like(scores)
    for picture in range(len(scores)):
        labels, places = torch.where(scores[picture] > least)
        kept = batched_nms(boxes[picture, places], scores[picture, labels, places], labels, iou)
        out[picture, labels[kept], places[kept]] = scores[picture, labels[kept], places[kept]]
    return out


def translation() -> dict[Callable[..., Any], Callable[..., Any]]:
    """For torch.onnx.export: the same by ONNX's own NonMaxSuppression; and torchvision's crops by RoiAlign."""
    from onnxscript import opset18

    op: Any = opset18

    def suppress(boxes: Any, scores: Any, iou: float, least: float) -> Any:
        most = op.Constant(value_ints=[CANDIDATES])
        limits = (op.Constant(value_floats=[value]) for value in (iou, least))
        chosen = op.NonMaxSuppression(boxes, scores, most, *limits)
        nothing = op.Mul(scores, op.Constant(value_float=0.0))
        return op.ScatterND(nothing, chosen, op.GatherND(scores, chosen))

    def align(
        maps: Any, rows: Any, spatial_scale: float, pooled_height: int, pooled_width: int, sampling_ratio: int, _: bool
    ) -> Any:
        picture = op.Cast(op.Gather(rows, op.Constant(value_int=0), axis=1), to=7)  # int64
        boxes = op.Gather(rows, op.Constant(value_ints=[1, 2, 3, 4]), axis=1)
        return op.RoiAlign(
            maps,
            boxes,
            picture,
            coordinate_transformation_mode="output_half_pixel",
            output_height=pooled_height,
            output_width=pooled_width,
            sampling_ratio=sampling_ratio,
            spatial_scale=spatial_scale,
        )

    operation()
    return {torch.ops.headstart.suppress.default: suppress, torch.ops.torchvision.roi_align.default: align}
