"""What a pyramid's maps say of boxes: RoIAlign (He et al. 2017, arXiv 1703.06870), as two matrix products a picture.

Bilinear sampling is linear along each side, so that a box's crop is `rows @ map @ columns`. torchvision's roi_align
gives the same and forward is as fast; backward it adds place by place, on a CPU in one thread, on a GPU in any order.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SIDE = 7  # places of a crop, squared
_SAMPLES = 2  # for each place, along each side


def crop(maps: list[Tensor], boxes: Tensor, strides: Sequence[int]) -> Tensor:
    """What a map says of each box, (n * p, channels, 7, 7): a large box's crop is from a coarse map.

    Args:
        maps: (n, channels, h, w), the finest first; gradients go to them, not to the boxes.
        boxes: corners (n, p, 4) in pixels.
        strides: of the first maps; only these are cropped from.
    """
    count = boxes.shape[1]
    area = ((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])).clamp(min=1e-6)
    least, largest = (round(math.log2(stride)) for stride in (strides[0], strides[-1]))
    level = (4 + torch.log2(area.sqrt() / 224) + 1e-6).floor().clamp(least, largest) - least
    levels = largest - least + 1
    if torch.compiler.is_exporting():  # shapes must not depend on the boxes: all of them from every map
        level = level.flatten()
        found = _exported(maps[0], boxes, strides[0])
        for which in range(1, levels):
            some = _exported(maps[which], boxes, strides[which])
            found = torch.where((level == which).reshape(-1, 1, 1, 1), some, found)
        return found
    parts, places = list[Tensor](), list[Tensor]()
    for which in range(levels):
        # taken apart at once: picture by picture, the gradient of each would be a whole batch of zeros but for its own
        for picture, of in enumerate(maps[which].unbind()):
            place = torch.where(level[picture] == which)[0]
            parts.append(_crops(of, boxes[picture, place] / strides[which]))
            places.append(place + picture * count)
    return torch.cat(parts)[torch.cat(places).argsort()]


def _crops(of: Tensor, boxes: Tensor) -> Tensor:
    """Crops (p, channels, 7, 7) of a map (channels, h, w), of corners (p, 4) in its own pixels."""
    channels, height, width = of.shape
    down = _weights(boxes[:, 1], boxes[:, 3], height).to(of.dtype)
    across = _weights(boxes[:, 0], boxes[:, 2], width).to(of.dtype)
    lines = down.flatten(0, 1) @ of.permute(1, 2, 0).flatten(1)
    return (across.unsqueeze(1) @ lines.reshape(-1, SIDE, width, channels)).permute(0, 3, 1, 2)


def _weights(start: Tensor, end: Tensor, length: int) -> Tensor:
    """How much each of the 7 places along a side (p,) takes from each of a map's pixels, (p, 7, length)."""
    step = (end - start).clamp(min=1) / (SIDE * _SAMPLES)
    at = start[:, None] + step[:, None] * (torch.arange(SIDE * _SAMPLES, device=start.device) + 0.5)
    pixels = torch.arange(length, device=start.device)
    near = (1 - (at.clamp(0, length - 1).unsqueeze(-1) - pixels).abs()).clamp(min=0)
    near = near * ((at >= -1) & (at <= length)).unsqueeze(-1)  # beyond its edges a map says nothing
    return near.reshape(-1, SIDE, _SAMPLES, length).mean(2)


def _exported(of: Tensor, boxes: Tensor, stride: int) -> Tensor:
    """As torchvision's operation, which ONNX knows."""
    from torchvision.ops import roi_align

    number = torch.arange(boxes.shape[0], device=boxes.device, dtype=boxes.dtype).reshape(-1, 1, 1)
    rows = torch.cat([number.expand(-1, boxes.shape[1], 1), boxes], -1).flatten(0, 1)
    found: Tensor = roi_align(of.float(), rows, (SIDE, SIDE), 1 / stride, sampling_ratio=_SAMPLES)
    return found
