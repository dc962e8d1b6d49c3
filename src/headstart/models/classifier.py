"""Task `classify`: backbone -> pooled features -> head; build, targets, loss, predict, validation metrics."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.base import distributed
from headstart.base.manifest import Image
from headstart.models.backbone import create_backbone
from headstart.models.file import ModelSpec
from headstart.params.root import HeadParams
from headstart.params.training import TrainingStageParams


class Classifier(nn.Module):
    """Normalized pictures (n, 3, h, w) -> logits (n, labels).

    Attributes:
        trunk: the backbone; its name and `head` are in the model file.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = backbone, head

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.head(self.trunk(pictures).float())
        return logits


def create_head(features: int, labels: int, params: HeadParams) -> nn.Sequential:
    """Hidden layers (linear, batch norm, ReLU, dropout), then one linear layer: (n, features) -> (n, labels)."""
    layers: list[nn.Module] = []
    widths = (features, *params.hidden)
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
    network = Classifier(create_backbone(spec.backbone), create_head(spec.features, len(spec.labels), spec.head))
    network.load_state_dict(tensors)
    return network.eval()


def encode_targets(images: Sequence[Image], labels: Sequence[str]) -> Tensor:
    """Label numbers (n,), in the order of `labels`."""
    number = {label: index for index, label in enumerate(labels)}
    return torch.tensor([number[image.label or ""] for image in images], dtype=torch.long)


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
