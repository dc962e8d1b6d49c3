"""Feature pyramid (Lin et al. 2017, arXiv 1612.03144) on a timm backbone: which feature maps it takes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from headstart.base.errors import UserError
from headstart.engine.input_spec import format_shape
from headstart.models.file import ModelSpec

PYRAMID_STRIDES = (8, 16, 32)  # of the backbone's feature maps that go into the pyramid


def backbone_feature_maps(backbone: nn.Module, pictures: Tensor, levels: Sequence[int] | None) -> list[Tensor]:
    """The backbone's feature maps (n, c, h, w) of these levels in timm's numbering; None: of all."""
    feature_maps: list[Tensor] = backbone.forward_intermediates(  # type: ignore[operator]
        pictures, indices=levels, stop_early=levels is not None, intermediates_only=True
    )
    return feature_maps


def create_pyramid(channels: Sequence[int], out_channels: int) -> FeaturePyramidNetwork:
    """A randomly initialized pyramid with two more levels above (P6, P7), as torchvision's RetinaNet has it.

    Args:
        channels: of the backbone's feature maps.
        out_channels: of each of the pyramid's feature maps.
    """
    return FeaturePyramidNetwork(list(channels), out_channels, LastLevelP6P7(out_channels, out_channels))


def pyramid_levels(backbone: nn.Module, spec: ModelSpec) -> tuple[list[int], list[int]]:
    """Levels, in timm's numbering, of the backbone's last feature map of each of PYRAMID_STRIDES, and their channels.

    Raises:
        UserError: the backbone has no feature maps of these strides.
    """
    shape = spec.input.shape
    feature_maps: list[Tensor] = []
    if hasattr(backbone, "forward_intermediates"):
        with torch.no_grad():
            feature_maps = backbone_feature_maps(backbone, torch.zeros(1, 3, *shape), None)
    stride_of_side = {-(-max(shape) // stride): stride for stride in PYRAMID_STRIDES}  # of the longer side
    last: dict[int, tuple[int, int]] = {}  # stride -> level and channels
    for level, feature_map in enumerate(feature_maps):
        if feature_map.ndim == 4 and max(feature_map.shape[-2:]) in stride_of_side:
            last[stride_of_side[max(feature_map.shape[-2:])]] = (level, feature_map.shape[1])
    if set(last) != set(PYRAMID_STRIDES):
        strides = ", ".join(map(str, PYRAMID_STRIDES))
        raise UserError(
            f"params.yaml: model.backbone: {spec.backbone!r}: a feature pyramid needs feature maps of strides "
            f"{strides}, which it does not have at {format_shape(shape)}; choose another backbone, such as "
            "tf_efficientnet_lite0 or resnet50"
        )
    return [last[stride][0] for stride in PYRAMID_STRIDES], [last[stride][1] for stride in PYRAMID_STRIDES]
