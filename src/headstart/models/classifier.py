"""Task `classify`: backbone -> pooled features -> head; build, targets, loss, predict, validation metrics."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.base import distributed
from headstart.base.manifest import Image
from headstart.models.backbone import create_backbone
from headstart.models.block_features import block_features
from headstart.models.file import ModelSpec
from headstart.models.kernel_features import KernelFeatures
from headstart.params.root import HeadParams
from headstart.params.training import TrainingStageParams


class Classifier(nn.Module):
    """Normalized pictures (n, 3, h, w) -> logits (n, labels).

    Attributes:
        trunk: the backbone; its name and `head` are in the model file.
        levels: of the blocks whose features the head takes too; empty: the backbone's pooled features alone.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, levels: Sequence[str] = ()) -> None:
        super().__init__()
        self.trunk, self.head, self.levels = backbone, head, tuple(levels)

    def embed(self, pictures: Tensor) -> Tensor:
        """The features (n, f) that the head takes, fp32."""
        features: Tensor = block_features(self.trunk, pictures, self.levels) if self.levels else self.trunk(pictures)
        return features.float()

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(pictures))
        return logits


def create_head(features: int, labels: int, params: HeadParams, kernel: KernelFeatures | None = None) -> nn.Sequential:
    """Hidden layers (linear, batch norm, ReLU, dropout), then one linear layer: (n, features) -> (n, labels).

    `kernel`: of kind: kernel, what stands before the linear layer.
    """
    layers: list[nn.Module] = []
    widths = (features, *params.hidden)
    if kernel is not None:
        layers.append(kernel)
        widths = (kernel.whitening.shape[1],)
    if not params.hidden:
        layers.append(nn.Dropout(params.dropout))
    for width_in, width_out in itertools.pairwise(widths):
        layers.append(nn.Linear(width_in, width_out))
        if params.batch_norm:
            layers.append(nn.BatchNorm1d(width_out))
        layers += [nn.ReLU(), nn.Dropout(params.dropout)]
    layers.append(nn.Linear(widths[-1], labels))
    return nn.Sequential(*layers)


def build(tensors: dict[str, Tensor], spec: ModelSpec) -> Classifier:
    """The network of a model file, in eval mode."""
    head = create_head(spec.features, len(spec.labels), spec.head, _kernel_of_shapes(tensors, spec))
    network = Classifier(create_backbone(spec.backbone), head, spec.levels)
    network.load_state_dict(tensors)
    return network.eval()


def _kernel_of_shapes(tensors: dict[str, Tensor], spec: ModelSpec) -> KernelFeatures | None:
    """The kernel features that these tensors are of, not filled yet; None: the head has none."""
    if spec.head.kind != "kernel":
        return None
    (components, landmarks, width) = (
        tensors["head.0.projection"].shape[1],
        *tensors["head.0.whitening"].shape,
    )
    return KernelFeatures(spec.features, components, landmarks, width)


def encode_targets(images: Sequence[Image], labels: Sequence[str]) -> Tensor:
    """Label numbers (n,), in the order of `labels`."""
    number = {label: index for index, label in enumerate(labels)}
    return torch.tensor([number[image.label or ""] for image in images], dtype=torch.long)


def soft_targets(images: Sequence[Image], labels: Sequence[str], smoothing: float = 0.0) -> Tensor:
    """Probabilities of the labels (n, labels), fp32: the annotator's confidence in the label, 1 where there is none.

    What is left of it is spread evenly over the other labels.

    Args:
        images: pictures with a label.
        labels: in the order of the outputs.
        smoothing: label smoothing, 0..1: the share that is spread evenly over all labels.
    """
    rows = torch.arange(len(images))
    confidence = torch.tensor([image.confidence or 1.0 for image in images])
    others = (1 - confidence) / max(1, len(labels) - 1)
    targets = others[:, None].repeat(1, len(labels))
    targets[rows, encode_targets(images, labels)] = confidence if len(labels) > 1 else 1.0
    return targets * (1 - smoothing) + smoothing / len(labels)


def training_targets(images: Sequence[Image], labels: Sequence[str]) -> Tensor:
    """What an epoch of training learns: `soft_targets` where some picture has a confidence, else `encode_targets`."""
    soft = any(image.confidence is not None for image in images)
    return soft_targets(images, labels) if soft else encode_targets(images, labels)


def class_weights(targets: Tensor, labels: int, params: TrainingStageParams) -> Tensor | None:
    """Weight per label (labels,), mean 1 over the pictures; None: all weights are 1."""
    if params.class_weights == "none":
        return None
    counts = torch.bincount(targets, minlength=labels).clamp(min=1).float()
    return len(targets) / (labels * counts)


def loss(logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    """Cross entropy, a scalar; in fp32, also where the network runs in bf16.

    With several processes each returns its rows' part of the whole batch's mean, which is weighted where labels are.

    Args:
        logits: (n, labels).
        targets: label numbers (n,), or probabilities (n, labels).
        weights: as `class_weights` returns them.
        smoothing: label smoothing, 0..1.
    """
    weights = None if weights is None else weights.to(logits.device)
    mean = F.cross_entropy(logits.float(), targets, weight=weights, label_smoothing=smoothing)
    if distributed.get_world_size() == 1:
        return mean
    weight = torch.tensor(float(len(targets))) if weights is None or targets.ndim > 1 else weights[targets].sum()
    return mean * (weight / distributed.all_reduce_sum(weight))


def predict(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Probabilities (n, labels); `temperature` calibrates them (temperature scaling)."""
    return (logits.float() / temperature).softmax(-1)


def compute_val_metrics(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> dict[str, float]:
    """Metrics of one epoch: val_loss, by which epochs are compared, and val_accuracy.

    Args:
        logits: (n, labels).
        targets: label numbers (n,).
        weights: as `class_weights` returns them; val_loss is then the mean weighted by them, as in training.
    """
    return {
        "val_loss": F.cross_entropy(logits.float(), targets, weight=weights).item(),
        "val_accuracy": (logits.argmax(-1) == targets).float().mean().item(),
    }
