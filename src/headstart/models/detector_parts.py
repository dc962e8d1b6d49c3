"""torchvision's complete detectors split into a backbone with timm's methods, a pyramid and a head of ours."""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.ssd import SSD

from headstart.engine.input_spec import Shape
from headstart.models import torchvision_detectors
from headstart.models.heads import fcos, retinanet
from headstart.models.heads.anchors import generate_anchors
from headstart.models.heads.fasterrcnn import FasterRcnnDetectionHead
from headstart.models.heads.ssd import SsdDetectionHead

DetectionHead = fcos.FcosDetectionHead | retinanet.RetinaNetDetectionHead | FasterRcnnDetectionHead | SsdDetectionHead

# As timm's group_matcher has them: parameters whose names match the same groups of the pattern are one block.
_RESNET_BLOCKS = {"stem": r"^layers\.(?:conv1|bn1)", "blocks": r"^layers\.layer(\d+)\.(\d+)"}
_MOBILENET_BLOCKS = {"blocks": r"^layers\.(\d+)"}
_SSD_BLOCKS = {"first": r"^layers\.0\.(\d+)", "second": r"^layers\.1\.(\d+)"}


class TorchvisionBackbone(nn.Module):
    """Layers of a torchvision detector with the methods of a timm network that headstart calls."""

    def __init__(self, layers: nn.Module, blocks: Mapping[str, str]) -> None:
        """`layers` returns feature maps by name, or is a sequence of parts, each returning one; `blocks`: patterns."""
        super().__init__()
        self.layers, self._blocks = layers, blocks

    def forward_intermediates(self, pictures: Tensor, **_: object) -> list[Tensor]:
        """All feature maps that go into the pyramid."""
        if isinstance(self.layers, IntermediateLayerGetter):
            return list(self.layers(pictures).values())
        feature_maps: list[Tensor] = []
        for part in self.layers.children():
            feature_maps.append(part(feature_maps[-1] if feature_maps else pictures))
        return feature_maps

    def forward(self, pictures: Tensor) -> Tensor:
        """The feature maps as rows (n, values)."""
        return torch.cat([feature_map.flatten(1) for feature_map in self.forward_intermediates(pictures)], 1)

    def group_matcher(self, coarse: bool = False) -> Mapping[str, str]:
        """Patterns of the names of each block's parameters."""
        return self._blocks


class SsdExtraLayers(nn.Module):
    """SSD's extra layers in the place of a pyramid: ever smaller feature maps after the backbone's two."""

    def __init__(self, layers: nn.ModuleList, scale: nn.Parameter | None) -> None:
        """`scale`: per channel of the first feature map, which it then normalizes (L2); None: as it is."""
        super().__init__()
        self.layers, self.scale = layers, scale

    def forward(self, feature_maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        first, last = feature_maps.values()
        out = [first if self.scale is None else self.scale.reshape(1, -1, 1, 1) * F.normalize(first), last]
        for layer in self.layers:
            out.append(layer(out[-1]))
        return OrderedDict((str(number), feature_map) for number, feature_map in enumerate(out))


def split_detector(
    name: str, labels: Sequence[str], shape: Shape, pretrained: Mapping[str, Tensor]
) -> tuple[TorchvisionBackbone, nn.Module, Callable[[list[Tensor]], DetectionHead]]:
    """Backbone, pyramid, and what makes the head for the pyramid's feature maps of a picture of that shape.

    Args:
        name: of the detector in torchvision.
        labels: in the order of the outputs.
        shape: of the input.
        pretrained: as the weights stage writes them, trained on COCO or without a predictor; empty: randomly
            initialized.
    """
    model = torchvision_detectors.create_detector(name, len(labels))
    if pretrained:
        predictor = torchvision_detectors.transfer_predictor(name, pretrained, model.state_dict(), labels)
        tensors = torchvision_detectors.drop_predictor(pretrained) | predictor
        missing, unexpected = model.load_state_dict(tensors, strict=False)
        assert not unexpected
        assert not torchvision_detectors.drop_predictor(dict.fromkeys(missing, torch.empty(0)))
    if isinstance(model, SSD):
        scale = getattr(model.backbone, "scale_weight", None)  # of VGG
        layers = list(model.backbone.extra)
        parts = list(model.backbone.features) if scale is None else [model.backbone.features, layers.pop(0)]
        backbone = TorchvisionBackbone(nn.ModuleList(parts), _SSD_BLOCKS)
        return backbone, SsdExtraLayers(nn.ModuleList(layers), scale), lambda maps: _ssd_head(model, maps, shape)
    assert isinstance(model, FCOS | RetinaNet | FasterRCNN)
    backbone = TorchvisionBackbone(model.backbone.body, _RESNET_BLOCKS if "resnet" in name else _MOBILENET_BLOCKS)
    return backbone, model.backbone.fpn, lambda maps: _detection_head(model, maps, shape)


def _ssd_head(model: SSD, feature_maps: list[Tensor], shape: Shape) -> SsdDetectionHead:
    anchors, _ = generate_anchors(model.anchor_generator, feature_maps, shape)
    return SsdDetectionHead(model.head, anchors, model.nms_thresh)


def _detection_head(model: FCOS | RetinaNet | FasterRCNN, feature_maps: list[Tensor], shape: Shape) -> DetectionHead:
    generator = model.rpn.anchor_generator if isinstance(model, FasterRCNN) else model.anchor_generator
    anchors, anchors_per_level = generate_anchors(generator, feature_maps, shape)
    if isinstance(model, FCOS):
        return fcos.FcosDetectionHead(model.head, anchors, anchors_per_level)
    if isinstance(model, RetinaNet):
        use_giou = model.head.regression_head._loss_type == "giou"
        return retinanet.RetinaNetDetectionHead(model.head, anchors, use_giou=use_giou)
    pooled = feature_maps[:-1]  # the last one, a max pooling of the one before, has anchors only
    return FasterRcnnDetectionHead(
        model.rpn.head,
        model.roi_heads.box_head,
        model.roi_heads.box_predictor,
        anchors=anchors,
        anchors_per_level=anchors_per_level,
        strides=[2 ** round(math.log2(max(shape) / max(feature_map.shape[-2:]))) for feature_map in pooled],
        shape=shape,
    )
