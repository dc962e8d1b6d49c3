"""torchvision's complete detectors, taken apart: a trunk that behaves as timm's do, a pyramid and a head."""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.ssd import SSD

from headstart import fcos, retinanet, whole
from headstart.anchors import lay
from headstart.fasterrcnn import FasterRcnn
from headstart.ssd import Ssd

Head = fcos.Fcos | retinanet.RetinaNet | FasterRcnn | Ssd

_RESNET = {"stem": r"^layers\.(?:conv1|bn1)", "blocks": r"^layers\.layer(\d+)\.(\d+)"}
_MOBILENET = {"blocks": r"^layers\.(\d+)"}
_TWO_PARTS = {"first": r"^layers\.0\.(\d+)", "second": r"^layers\.1\.(\d+)"}


class Trunk(nn.Module):
    """Layers of torchvision's with the methods of a timm network that are asked for here."""

    def __init__(self, layers: nn.Module, blocks: Mapping[str, str]) -> None:
        """`layers` gives maps by name, or is a sequence whose every part gives one; `blocks` as timm groups names."""
        super().__init__()
        self.layers, self._blocks = layers, blocks

    def forward_intermediates(self, pictures: Tensor, **_: object) -> list[Tensor]:
        """All the maps that the pyramid stands on."""
        if isinstance(self.layers, IntermediateLayerGetter):
            return list(self.layers(pictures).values())
        found: list[Tensor] = []
        for part in self.layers.children():
            found.append(part(found[-1] if found else pictures))
        return found

    def forward(self, pictures: Tensor) -> Tensor:
        """The maps as rows (n, values)."""
        return torch.cat([each.flatten(1) for each in self.forward_intermediates(pictures)], 1)

    def group_matcher(self, coarse: bool = False) -> Mapping[str, str]:
        """What belongs to which block."""
        return self._blocks


class Extra(nn.Module):
    """What SSD has in a pyramid's place: ever smaller maps on top of the trunk's two."""

    def __init__(self, layers: nn.ModuleList, scale: nn.Parameter | None) -> None:
        super().__init__()
        self.layers, self.scale = layers, scale

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        first, last = maps.values()
        found = [first if self.scale is None else self.scale.reshape(1, -1, 1, 1) * F.normalize(first), last]
        for layer in self.layers:
            found.append(layer(found[-1]))
        return OrderedDict((str(number), each) for number, each in enumerate(found))


def parts(
    name: str, labels: int, size: int, pretrained: Mapping[str, Tensor]
) -> tuple[Trunk, nn.Module, Callable[[list[Tensor]], Head]]:
    """Trunk, pyramid, and what makes the head for the pyramid's maps of a picture of side `size`.

    Args:
        name: torchvision's.
        labels: how many.
        size: pixels.
        pretrained: tensors as `whole.kept` gives them, or none.
    """
    model = whole.make(name, labels)
    if pretrained:
        lacking, unknown = model.load_state_dict(pretrained, strict=False)
        assert not unknown
        assert not whole.kept(dict.fromkeys(lacking, torch.empty(0)))
    if isinstance(model, SSD):
        backbone = model.backbone
        scale = getattr(backbone, "scale_weight", None)  # of VGG
        layers = list(backbone.extra)
        two = list(backbone.features) if scale is None else [backbone.features, layers.pop(0)]
        trunk = Trunk(nn.ModuleList(two), _TWO_PARTS)
        return trunk, Extra(nn.ModuleList(layers), scale), lambda maps: _ssd(model, maps, size)
    assert isinstance(model, FCOS | RetinaNet | FasterRCNN)
    blocks = _RESNET if "resnet" in name else _MOBILENET
    return Trunk(model.backbone.body, blocks), model.backbone.fpn, lambda maps: _head(model, maps, size)


def _ssd(model: SSD, maps: list[Tensor], size: int) -> Ssd:
    return Ssd(model.head, lay(model.anchor_generator, maps, size)[0], model.nms_thresh)


def _head(model: FCOS | RetinaNet | FasterRCNN, maps: list[Tensor], size: int) -> Head:
    if isinstance(model, FCOS):
        return fcos.Fcos(model.head, *lay(model.anchor_generator, maps, size))
    if isinstance(model, RetinaNet):
        giou = model.head.regression_head._loss_type == "giou"
        return retinanet.RetinaNet(model.head, lay(model.anchor_generator, maps, size)[0], giou=giou)
    anchors, counts = lay(model.rpn.anchor_generator, maps, size)
    return FasterRcnn(
        model.rpn.head,
        model.roi_heads.box_head,
        model.roi_heads.box_predictor,
        anchors=anchors,
        counts=counts,
        strides=[2 ** round(math.log2(size / each.shape[-1])) for each in maps[:-1]],  # the last is pooled, for anchors
        size=size,
    )
