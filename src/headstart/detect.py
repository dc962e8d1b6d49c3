"""Task `detect`: trunk -> feature pyramid -> detector's head. A task is a module: build, loss, predict, score."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from headstart import fasterrcnn, fcos, freeze, nms, parts, retinanet
from headstart.coco import Annotation, Image, Manifest
from headstart.compute import trial_pictures
from headstart.detections import Detection
from headstart.errors import UserError
from headstart.freeze import Block
from headstart.matches import match
from headstart.modelfile import Card
from headstart.norms import quick_norms
from headstart.params import WHOLE
from headstart.parts import Head
from headstart.pixels import Input, from_input, to_input

STRIDES = (8, 16, 32)  # of the trunk's maps that the pyramid stands on
LEAST = 0.05  # a score below is no box
# A head takes maps (and targets, where what it says depends on them); it has `loss`, `decode`, `overlap`, `anchors`.
HEADS: dict[str, Callable[[int, int, list[Tensor], int], Head]] = {
    "fcos": fcos.make,
    "retinanet": retinanet.make,
    "fasterrcnn": fasterrcnn.make,
}


class Detector(nn.Module):
    """Normalised pictures (n, 3, s, s) -> what the head says of them (n, ...).

    Attributes:
        levels: which of the trunk's maps, in timm's numbering, the pyramid stands on.
    """

    def __init__(
        self,
        trunk: nn.Module,
        pyramid: nn.Module,
        head: Callable[[list[Tensor]], Head],
        *,
        levels: Sequence[int],
        size: int,
    ) -> None:
        """`pyramid`: names -> maps, both ways; `head`: made for the maps of a picture of side `size`."""
        super().__init__()
        self.trunk, self.pyramid = trunk.eval(), pyramid.eval()
        self.levels, self.size = levels, size
        with torch.no_grad():
            self.head = head(self.maps(torch.zeros(1, 3, size, size)))
        quick_norms(self)

    def maps(self, pictures: Tensor) -> list[Tensor]:
        """The pyramid's maps, the finest first."""
        return self.raised(trunk_maps(self.trunk, pictures, self.levels))

    def raised(self, below: Sequence[Tensor]) -> list[Tensor]:
        """The pyramid's maps of the trunk's."""
        named = OrderedDict((str(number), each) for number, each in enumerate(below))
        return list(self.pyramid(named).values())

    def forward(self, pictures: Tensor, targets: Tensor | None = None) -> Tensor:
        """`targets` as `padded` gives: what is learned from may depend on them."""
        said: Tensor = self.head(self.maps(pictures), targets)
        return said


def _new(card: Card, pretrained: Mapping[str, Tensor]) -> Detector:
    """Pyramid and head that know nothing, but for what a complete detector's `pretrained` say of them.

    Raises:
        UserError: the network does not take pictures of that size.
    """
    from headstart.weights import trunk

    width, size, labels = card.pyramid, card.input.size, len(card.labels)
    if card.detector in WHOLE:
        below, pyramid, head = parts.parts(card.detector, labels, size, pretrained)
        try:
            return Detector(below, pyramid, head, levels=(), size=size)
        except RuntimeError as error:
            raise UserError(
                f"params.yaml: model.image_size: {size}: {card.detector} does not take pictures of that size "
                f"({str(error).partition(chr(10))[0]}); give a larger one"
            ) from None
    network = trunk(card.backbone).eval()  # or looking at its maps would move batch norm's statistics
    if pretrained:
        network.load_state_dict(pretrained)
    levels, channels = _levels(network, card)
    return Detector(
        network,
        FeaturePyramidNetwork(channels, width, LastLevelP6P7(width, width)),
        lambda maps: HEADS[card.detector](width, labels, maps, size),
        levels=levels,
        size=size,
    )


def trunk_maps(trunk: nn.Module, pictures: Tensor, levels: Sequence[int] | None) -> list[Tensor]:
    """The trunk's feature maps (n, c, h, w) of these levels; None: of all."""
    found: list[Tensor] = trunk.forward_intermediates(  # type: ignore[operator]
        pictures, indices=levels, stop_early=levels is not None, intermediates_only=True
    )
    return found


def _levels(trunk: nn.Module, card: Card) -> tuple[list[int], list[int]]:
    """Which of the trunk's maps have the strides wanted, the last of each, and how many channels.

    Raises:
        UserError: the backbone has no such maps.
    """
    side, maps = card.input.size, list[Tensor]()
    if hasattr(trunk, "forward_intermediates"):
        with torch.no_grad():
            maps = trunk_maps(trunk, torch.zeros(1, 3, side, side), None)
    at = {-(-side // stride): stride for stride in STRIDES}
    last = {at[m.shape[-1]]: (n, m.shape[1]) for n, m in enumerate(maps) if m.ndim == 4 and m.shape[-1] in at}
    if set(last) != set(STRIDES):
        strides = ", ".join(map(str, STRIDES))
        raise UserError(
            f"params.yaml: model.backbone: {card.backbone!r}: a feature pyramid needs maps of strides {strides}, which "
            f"it does not give at {side} px; choose another backbone, such as tf_efficientnet_lite0 or resnet50"
        )
    return [last[stride][0] for stride in STRIDES], [last[stride][1] for stride in STRIDES]


def blocks(network: Detector) -> tuple[list[Block], frozenset[str]]:
    """The trunk's blocks, and its parameters that no map depends on (a classifier's last convolution, say)."""
    parameters = dict(network.trunk.named_parameters())
    maps = trunk_maps(network.trunk, trial_pictures(network.size, 1), network.levels)
    total = torch.stack([each.sum() for each in maps]).sum()
    grads = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    idle = frozenset(name for name, grad in zip(parameters, grads, strict=True) if grad is None)
    return [block for block in freeze.blocks(network.trunk) if not idle.issuperset(block.parameters)], idle


def build(tensors: dict[str, Tensor], card: Card) -> Detector:
    """The network of a model file, in eval mode."""
    network = _new(card, {})
    network.load_state_dict(tensors)
    return network.eval()


def start(pretrained: dict[str, Tensor], card: Card) -> Detector:
    """A pretrained trunk, or a whole detector but for its predictor; what stands on it knows nothing yet."""
    return _new(card, pretrained).eval()


def targets(manifest: Manifest, wanted: Input) -> list[Tensor]:
    """For each picture its boxes (m, 5): number of the label, corners in pixels of the input. Crowds are left out."""
    number = {category.id: index for index, category in enumerate(sorted(manifest.categories, key=lambda c: c.id))}
    boxes: dict[int, list[Annotation]] = {image.id: [] for image in manifest.images}
    for annotation in manifest.annotations:
        if not annotation.iscrowd:
            boxes[annotation.image_id].append(annotation)

    def of(image: Image) -> Tensor:
        some = boxes[image.id]
        found = torch.tensor([(number[a.category_id], *a.bbox) for a in some], dtype=torch.float32).reshape(-1, 5)
        found[:, 3:] += found[:, 1:3]
        found[:, 1:] = torch.from_numpy(to_input(found[:, 1:].numpy(), image.width, image.height, wanted))
        sides = found[:, 3:] - found[:, 1:3]
        return found[(sides > 0).all(1)]  # by `crop`, some lie outside

    return [of(image) for image in manifest.images]


def padded(targets: Sequence[Tensor]) -> Tensor:
    """One tensor (n, m, 5) of all, filled up with label -1."""
    rows = nn.utils.rnn.pad_sequence(list(targets), batch_first=True, padding_value=-1)
    return rows if rows.shape[1] else rows.new_full((len(rows), 1, 5), -1)


def loss(network: Detector, said: Tensor, targets: Tensor) -> Tensor:
    """The detector's own loss, a scalar, in fp32, whatever the network computed in. `targets` as `padded` gives."""
    return network.head.loss(said.float(), targets)


def predict(network: Detector, said: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (n, k, 4) in pixels of the input, scores (n, k), falling, and labels (n, k); score 0: no box."""
    boxes, scores = network.head.decode(said.float())
    return nms.select(boxes.clamp(0, network.size), scores, network.head.overlap, LEAST)


def detections(network: Detector, said: Tensor, manifest: Manifest, card: Card) -> list[Detection]:
    """What was said of a manifest's pictures, as COCO results in their own pixels."""
    numbers = [category.id for category in sorted(manifest.categories, key=lambda c: c.id)]
    rows: list[Detection] = []
    found = [predict(network, some) for some in torch.split(said.to(network.head.anchors.device), 16)]
    boxes, scores, labels = (torch.cat(some).cpu().numpy() for some in zip(*found, strict=True))
    for row, image in enumerate(manifest.images):
        corners = from_input(boxes[row], image.width, image.height, card.input)
        for (x1, y1, x2, y2), score, label in zip(corners.tolist(), scores[row], labels[row], strict=True):
            if score > 0 and x2 > x1 and y2 > y1:
                box = (x1, y1, x2 - x1, y2 - y1)
                rows.append(Detection(image_id=image.id, category_id=numbers[label], bbox=box, score=float(score)))
    return rows


def score(
    network: Detector, said: Tensor, targets: Sequence[Tensor], manifest: Manifest, card: Card
) -> dict[str, float]:
    """What one epoch is judged by: val_loss; val_AP and val_AP50 beside it (0 where there is nothing to find)."""
    eights = [slice(start, start + 8) for start in range(0, len(said), 8)]
    device = network.head.anchors.device
    losses = [loss(network, said[p].to(device), padded(targets[p]).to(device)).item() for p in eights]
    sizes = [len(said[p]) for p in eights]
    stats = match(manifest, detections(network, said, manifest, card)).stats
    return {
        "val_loss": sum(a * b for a, b in zip(losses, sizes, strict=True)) / sum(sizes),
        "val_AP": max(0.0, float(stats[0])),
        "val_AP50": max(0.0, float(stats[1])),
    }
