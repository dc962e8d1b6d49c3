"""RoIAlign (He et al. 2017, arXiv 1703.06870) as two matrix products: deterministic, parallel on CPUs.

Bilinear sampling is linear along each axis, so that a box's features are `rows @ feature_map @ columns`. torchvision's
roi_align computes the same and is as fast forward; backward it adds pixel by pixel, on a CPU in one thread, on a GPU in
any order.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

ROI_SIZE = 7  # bins along each side of a region of interest
_SAMPLING_RATIO = 2  # samples in each bin, along each side


def multiscale_roi_align(feature_maps: list[Tensor], boxes: Tensor, strides: Sequence[int]) -> Tensor:
    """Features (n * p, channels, 7, 7) of boxes, each from the pyramid level for its size (Lin et al. 2017, eq. 1).

    Args:
        feature_maps: (n, channels, h, w), the finest first; gradients go to them, not to the boxes.
        boxes: (n, p, 4), xyxy in pixels.
        strides: of the first feature maps; only these are used.
    """
    area = ((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])).clamp(min=1e-6)
    finest, coarsest = (round(math.log2(stride)) for stride in (strides[0], strides[-1]))
    level = (4 + torch.log2(area.sqrt() / 224) + 1e-6).floor().clamp(finest, coarsest) - finest
    strides = strides[: coarsest - finest + 1]  # of two feature maps of one stride (MobileNet's) the first
    if torch.compiler.is_exporting():
        return _align_on_all_levels(feature_maps, boxes, strides, level.flatten())
    features, rows = list[Tensor](), list[Tensor]()
    for number, stride in enumerate(strides):
        # unbind: indexed picture by picture, each gradient would be a whole batch of zeros but for its own picture
        for picture, feature_map in enumerate(feature_maps[number].unbind()):
            index = torch.where(level[picture] == number)[0]
            features.append(_align(feature_map, boxes[picture, index] / stride))
            rows.append(index + picture * boxes.shape[1])
    return torch.cat(features)[torch.cat(rows).argsort()]


def _align(feature_map: Tensor, boxes: Tensor) -> Tensor:
    """Features (p, channels, 7, 7) from a feature map (channels, h, w), of boxes (p, 4), xyxy in its own pixels."""
    channels, height, width = feature_map.shape
    rows = _bilinear_weights(boxes[:, 1], boxes[:, 3], height).to(feature_map.dtype)
    columns = _bilinear_weights(boxes[:, 0], boxes[:, 2], width).to(feature_map.dtype)
    lines = rows.flatten(0, 1) @ feature_map.permute(1, 2, 0).flatten(1)
    return (columns.unsqueeze(1) @ lines.reshape(-1, ROI_SIZE, width, channels)).permute(0, 3, 1, 2)


def _bilinear_weights(start: Tensor, end: Tensor, length: int) -> Tensor:
    """Weights (p, 7, length) of a feature map's pixels along one axis, for the 7 bins of boxes from start to end."""
    step = (end - start).clamp(min=1) / (ROI_SIZE * _SAMPLING_RATIO)
    at = start[:, None] + step[:, None] * (torch.arange(ROI_SIZE * _SAMPLING_RATIO, device=start.device) + 0.5)
    pixels = torch.arange(length, device=start.device)
    weights = (1 - (at.clamp(0, length - 1).unsqueeze(-1) - pixels).abs()).clamp(min=0)
    weights = weights * ((at >= -1) & (at <= length)).unsqueeze(-1)  # samples outside the feature map are 0
    return weights.reshape(-1, ROI_SIZE, _SAMPLING_RATIO, length).mean(2)


def _align_on_all_levels(feature_maps: list[Tensor], boxes: Tensor, strides: Sequence[int], level: Tensor) -> Tensor:
    """For torch.export, whose shapes must not depend on the boxes: every box on every level, then the right one."""
    features = _torchvision_roi_align(feature_maps[0], boxes, strides[0])
    for number in range(1, len(strides)):
        other = _torchvision_roi_align(feature_maps[number], boxes, strides[number])
        features = torch.where((level == number).reshape(-1, 1, 1, 1), other, features)
    return features


def _torchvision_roi_align(feature_map: Tensor, boxes: Tensor, stride: int) -> Tensor:
    """By torchvision's operator, which ONNX has."""
    from torchvision.ops import roi_align

    number = torch.arange(boxes.shape[0], device=boxes.device, dtype=boxes.dtype).reshape(-1, 1, 1)
    rois = torch.cat([number.expand(-1, boxes.shape[1], 1), boxes], -1).flatten(0, 1)
    features: Tensor = roi_align(
        feature_map.float(), rois, (ROI_SIZE, ROI_SIZE), 1 / stride, sampling_ratio=_SAMPLING_RATIO
    )
    return features
