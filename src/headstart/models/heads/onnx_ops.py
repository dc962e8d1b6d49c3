"""What torch.onnx.export makes of NMS and RoIAlign: ONNX's own NonMaxSuppression and RoiAlign."""

from collections.abc import Callable
from typing import Any

import torch

from headstart.models.heads.nms import TOPK_CANDIDATES, register_suppress_op


def onnx_translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """For torch.onnx.export's `custom_translation_table`: operator of torch -> function of onnxscript."""
    from onnxscript import opset18

    op: Any = opset18

    def suppress(boxes: Any, scores: Any, iou_threshold: float, score_threshold: float) -> Any:
        max_boxes = op.Constant(value_ints=[TOPK_CANDIDATES])
        thresholds = (op.Constant(value_floats=[value]) for value in (iou_threshold, score_threshold))
        kept = op.NonMaxSuppression(boxes, scores, max_boxes, *thresholds)
        zeros = op.Mul(scores, op.Constant(value_float=0.0))
        return op.ScatterND(zeros, kept, op.GatherND(scores, kept))

    def roi_align(
        feature_map: Any,
        rois: Any,
        spatial_scale: float,
        pooled_height: int,
        pooled_width: int,
        sampling_ratio: int,
        _: bool,
    ) -> Any:
        picture_index = op.Cast(op.Gather(rois, op.Constant(value_int=0), axis=1), to=7)  # int64
        boxes = op.Gather(rois, op.Constant(value_ints=[1, 2, 3, 4]), axis=1)
        return op.RoiAlign(
            feature_map,
            boxes,
            picture_index,
            coordinate_transformation_mode="output_half_pixel",
            output_height=pooled_height,
            output_width=pooled_width,
            sampling_ratio=sampling_ratio,
            spatial_scale=spatial_scale,
        )

    register_suppress_op()
    return {torch.ops.headstart.suppress.default: suppress, torch.ops.torchvision.roi_align.default: roi_align}
