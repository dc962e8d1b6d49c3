"""Task `detect`: backbone -> feature pyramid -> detection head; build, targets, loss, predict, validation metrics."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from headstart.base.clip_boxes import clip_boxes
from headstart.base.detections import Detection
from headstart.base.manifest import Image, Manifest, xyxy_to_xywh
from headstart.engine.equivalence import example_input
from headstart.engine.input_spec import InputSpec, Shape, boxes_from_input, boxes_to_input
from headstart.metrics.coco_matching import match_detections
from headstart.models.backbone import create_backbone, image_size_error
from headstart.models.detector_parts import DetectionHead, split_detector
from headstart.models.file import ModelSpec
from headstart.models.freeze import Block, list_blocks
from headstart.models.heads import fasterrcnn, fcos, nms, retinanet
from headstart.models.pyramid import backbone_feature_maps, create_pyramid, pyramid_levels
from headstart.params.root import TORCHVISION_DETECTORS

MIN_SCORE = 0.05  # boxes of a lower score are dropped before NMS
# (channels, labels, feature maps, the input's shape) -> a new head
HEADS: dict[str, Callable[[int, int, list[Tensor], Shape], DetectionHead]] = {
    "fcos": fcos.create_head,
    "retinanet": retinanet.create_head,
    "fasterrcnn": fasterrcnn.create_head,
}
FITNESS_BOXES = 100  # boxes of val whose AP has half the weight in the fitness of an epoch
_CHUNK = 16  # pictures whose outputs are decoded at once


class Detector(nn.Module):
    """Normalized pictures (n, 3, h, w) -> the head's outputs (n, ...).

    Attributes:
        trunk: the backbone; its name, `pyramid` and `head` are in the model file.
        levels: of the backbone's feature maps, in timm's numbering, that go into the pyramid.
        shape: of the pictures.
    """

    def __init__(
        self,
        backbone: nn.Module,
        pyramid: nn.Module,
        head: Callable[[list[Tensor]], DetectionHead],
        *,
        levels: Sequence[int],
        shape: Shape,
    ) -> None:
        """`pyramid`: feature maps by name -> feature maps by name; `head`: makes the head for the pyramid's."""
        super().__init__()
        self.trunk, self.pyramid = backbone.eval(), pyramid.eval()
        self.levels, self.shape = levels, shape
        with torch.no_grad():
            self.head = head(self.pyramid_features(torch.zeros(1, 3, *shape)))

    def pyramid_features(self, pictures: Tensor) -> list[Tensor]:
        """The pyramid's feature maps (n, c, h, w), the finest first."""
        return self.apply_pyramid(backbone_feature_maps(self.trunk, pictures, self.levels))

    def apply_pyramid(self, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        """The pyramid's feature maps of the backbone's."""
        by_name = OrderedDict((str(number), feature_map) for number, feature_map in enumerate(feature_maps))
        return list(self.pyramid(by_name).values())

    def forward(self, pictures: Tensor, targets: Tensor | None = None) -> Tensor:
        """`targets` as `pad_targets` returns them: in training Faster R-CNN samples proposals by them."""
        outputs: Tensor = self.head(self.pyramid_features(pictures), targets)
        return outputs


def _assemble(spec: ModelSpec, pretrained: Mapping[str, Tensor]) -> Detector:
    """A randomly initialized detector, but for the tensors in `pretrained`.

    Raises:
        UserError: the network does not take pictures of that size.
    """
    shape, labels = spec.input.shape, len(spec.labels)
    if spec.detector in TORCHVISION_DETECTORS:
        backbone, pyramid, head = split_detector(spec.detector, spec.labels, shape, pretrained)
        try:
            return Detector(backbone, pyramid, head, levels=(), shape=shape)
        except RuntimeError as error:
            raise image_size_error(shape, spec.detector, error, "give a larger one") from None
    network = create_backbone(spec.backbone).eval()  # eval: a forward pass must not update batch norm's statistics
    if pretrained:
        network.load_state_dict(pretrained)
    levels, channels = pyramid_levels(network, spec)
    return Detector(
        network,
        create_pyramid(channels, spec.pyramid),
        lambda feature_maps: HEADS[spec.detector](spec.pyramid, labels, feature_maps, shape),
        levels=levels,
        shape=shape,
    )


def blocks_and_unused_parameters(network: Detector) -> tuple[list[Block], frozenset[str]]:
    """The backbone's blocks, and its parameters that no feature map depends on (a classifier's last convolution)."""
    parameters = dict(network.trunk.named_parameters())
    feature_maps = backbone_feature_maps(network.trunk, example_input(network.shape, 1), network.levels)
    total = torch.stack([feature_map.sum() for feature_map in feature_maps]).sum()
    gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    unused = frozenset(name for name, gradient in zip(parameters, gradients, strict=True) if gradient is None)
    return [block for block in list_blocks(network.trunk) if not unused.issuperset(block.parameters)], unused


def build(tensors: dict[str, Tensor], spec: ModelSpec) -> Detector:
    """The network of a model file, in eval mode."""
    network = _assemble(spec, {})
    network.load_state_dict(tensors)
    return network.eval()


def build_from_pretrained(pretrained: dict[str, Tensor], spec: ModelSpec) -> Detector:
    """A detector with a pretrained backbone, or a pretrained complete detector with a new predictor, in eval mode.

    What has no pretrained tensors is randomly initialized.
    """
    return _assemble(spec, pretrained).eval()


def encode_targets(manifest: Manifest, input_spec: InputSpec) -> list[Tensor]:
    """For each picture its boxes (m, 5): number of the label, xyxy in pixels of the input.

    Crowd boxes are left out. What `resize: crop` cuts off of the picture is cut off of the boxes, by the rule of
    `clip_boxes`.
    """
    number = manifest.label_numbers()
    annotations = manifest.annotations_by_image()
    height, width = input_spec.shape

    def encode(image: Image) -> Tensor:
        rows = [(number[a.category_id], *a.bbox) for a in annotations[image.id] if not a.iscrowd]
        boxes = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
        boxes[:, 3:] += boxes[:, 1:3]
        in_input = boxes_to_input(boxes[:, 1:].numpy(), image.width, image.height, input_spec)
        clipped, stay = clip_boxes(in_input, width, height)
        return torch.cat([boxes[:, :1], torch.from_numpy(clipped)], 1)[torch.from_numpy(stay)]

    return [encode(image) for image in manifest.images]


def pad_targets(targets: Sequence[Tensor]) -> Tensor:
    """All pictures' targets as one tensor (n, m, 5), padded with label -1; m is at least 1."""
    padded = nn.utils.rnn.pad_sequence(list(targets), batch_first=True, padding_value=-1)
    return padded if padded.shape[1] else padded.new_full((len(padded), 1, 5), -1)


def loss(network: Detector, outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """The head's loss, a scalar in fp32, also where the network runs in bf16.

    Args:
        network: gives the loss.
        outputs: its outputs, (n, ...).
        targets: as `pad_targets` returns them.
        class_weights: as `balanced_weights` returns them; None: all are 1.
    """
    weights = None if class_weights is None else class_weights.to(outputs.device)
    return network.head.loss(outputs.float(), targets, weights)


def balanced_weights(targets: Sequence[Tensor], labels: int) -> Tensor:
    """A weight for each label (labels,), the smaller the more boxes it has; their mean over the boxes is 1.

    `targets` as `encode_targets` returns them.
    """
    counts = torch.bincount(torch.cat(list(targets))[:, 0].long(), minlength=labels).float()
    return counts.sum() / (labels * counts.clamp(min=1))


def predict(network: Detector, outputs: Tensor, *, class_agnostic_nms: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (n, k, 4), xyxy in pixels of the input, scores (n, k), descending, and labels (n, k); score 0: no box."""
    boxes, scores = network.head.decode(outputs.float())
    return nms.select_boxes(
        clip_boxes_to_image(boxes, network.shape),
        scores,
        network.head.nms_iou,
        MIN_SCORE,
        class_agnostic=class_agnostic_nms,
    )


def to_coco_results(
    network: Detector, outputs: Tensor, manifest: Manifest, spec: ModelSpec, *, class_agnostic_nms: bool = False
) -> list[Detection]:
    """The outputs for a manifest's pictures as COCO results, boxes in pixels of the pictures."""
    category_ids = list(manifest.label_numbers())
    device = network.head.anchors.device
    predictions = [
        predict(network, chunk.to(device), class_agnostic_nms=class_agnostic_nms)
        for chunk in torch.split(outputs, _CHUNK)
    ]
    boxes, scores, labels = (torch.cat(parts).cpu().numpy() for parts in zip(*predictions, strict=True))
    results: list[Detection] = []
    for row, image in enumerate(manifest.images):
        corners = boxes_from_input(boxes[row], image.width, image.height, spec.input)
        for xyxy, score, label in zip(corners.tolist(), scores[row], labels[row], strict=True):
            left, top, width, height = xyxy_to_xywh(xyxy)
            if score > 0 and width > 0 and height > 0:
                box = (left, top, width, height)
                results.append(
                    Detection(image_id=image.id, category_id=category_ids[label], bbox=box, score=float(score))
                )
    return results


def compute_val_metrics(
    network: Detector,
    outputs: Tensor,
    targets: Sequence[Tensor],
    manifest: Manifest,
    spec: ModelSpec,
    class_weights: Tensor | None = None,
) -> dict[str, float]:
    """Metrics of one epoch: val_fitness, by which epochs are compared; val_loss; val_AP, val_AP50 (0: no boxes).

    The fitness is a mean of AP and of minus the loss. AP is what a detector is judged by, and the loss may rise while
    boxes still get better; but on a few boxes AP is noise. Its weight is b / (b + FITNESS_BOXES) for b boxes of val.

    Args:
        network: gives loss and box decoding.
        outputs: of the validation pictures, (n, ...), on the CPU.
        targets: as `encode_targets` returns them.
        manifest: the validation pictures.
        spec: of the model.
        class_weights: of the loss, as in training.
    """
    batches = [slice(start, start + 8) for start in range(0, len(outputs), 8)]
    device = network.head.anchors.device
    losses = [
        loss(network, outputs[rows].to(device), pad_targets(targets[rows]).to(device), class_weights).item()
        for rows in batches
    ]
    sizes = [len(outputs[rows]) for rows in batches]
    stats = match_detections(manifest, to_coco_results(network, outputs, manifest, spec)).stats
    val_loss = sum(mean * size for mean, size in zip(losses, sizes, strict=True)) / sum(sizes)
    val_ap, boxes = max(0.0, float(stats[0])), sum(len(of_picture) for of_picture in targets)
    weight = boxes / (boxes + FITNESS_BOXES)
    return {
        "val_loss": val_loss,
        "val_AP": val_ap,
        "val_AP50": max(0.0, float(stats[1])),
        "val_fitness": weight * val_ap - (1 - weight) * val_loss,
    }
