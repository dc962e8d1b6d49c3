"""Task `classify`: trunk -> pooled features -> head. A task is a module: build, loss, predict, score."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart import ranks
from headstart.coco import Image
from headstart.modelfile import Card
from headstart.params import FitParams, HeadParams


class Classifier(nn.Module):
    """Normalised pictures (n, 3, h, w) -> logits (n, labels)."""

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.head(self.trunk(pictures).float())
        return logits


def make_head(features: int, labels: int, params: HeadParams) -> nn.Sequential:
    """Hidden layers (linear, batch norm, ReLU, dropout), then one linear layer: (n, features) -> (n, labels)."""
    layers: list[nn.Module] = []
    widths = (features, *params.hidden)
    if not params.hidden:
        layers.append(nn.Dropout(params.dropout))
    for before, after in itertools.pairwise(widths):
        layers.append(nn.Linear(before, after))
        if params.batch_norm:
            layers.append(nn.BatchNorm1d(after))
        layers += [nn.ReLU(), nn.Dropout(params.dropout)]
    layers.append(nn.Linear(widths[-1], labels))
    return nn.Sequential(*layers)


def build(tensors: dict[str, Tensor], card: Card) -> Classifier:
    """The network of a model file, in eval mode."""
    from headstart.weights import trunk

    network = Classifier(trunk(card.backbone), make_head(card.features, len(card.labels), card.head))
    network.load_state_dict(tensors)
    return network.eval()


def targets(images: Sequence[Image], labels: Sequence[str]) -> Tensor:
    """Label numbers (n,), in the order of `labels`."""
    number = {label: index for index, label in enumerate(labels)}
    return torch.tensor([number[image.label or ""] for image in images], dtype=torch.long)


def class_weights(targets: Tensor, labels: int, params: FitParams) -> Tensor | None:
    """Weight per label (labels,), mean 1 over the pictures; None when every picture counts the same."""
    if params.class_weights == "none":
        return None
    counts = torch.bincount(targets, minlength=labels).clamp(min=1).float()
    return len(targets) / (labels * counts)


def loss(logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    """Cross entropy, a scalar; in fp32, whatever the network computed in. Targets: (n,), or shares (n, labels).

    Of several processes each gives its rows' part of the whole batch's mean, which is weighted where labels are.
    """
    weights = None if weights is None else weights.to(logits.device)
    mean = F.cross_entropy(logits.float(), targets, weight=weights, label_smoothing=smoothing)
    if ranks.count() == 1:
        return mean
    weight = torch.tensor(float(len(targets))) if weights is None or targets.ndim > 1 else weights[targets].sum()
    return mean * (weight / ranks.whole(weight))


def predict(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Probabilities (n, labels); `temperature` calibrates them."""
    return (logits.float() / temperature).softmax(-1)


def score(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """What one epoch is judged by: val_loss and val_accuracy."""
    return {
        "val_loss": F.cross_entropy(logits.float(), targets).item(),
        "val_accuracy": (logits.argmax(-1) == targets).float().mean().item(),
    }
