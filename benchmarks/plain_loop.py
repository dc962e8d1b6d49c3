"""Transfer learning the plain way, as tutorials have it: what benchmarks/engine.py compares with.

As PyTorch's transfer-learning tutorial: ImageFolder and DataLoader decode and change every file anew each epoch, the
frozen backbone runs every epoch, all in fp32; then everything trains at a lower rate. Every epoch is validated, and the
one of the best accuracy kept. Adam in the place of the tutorial's SGD: it gets further in so few epochs.
"""

import copy
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from headstart.models.backbone import create_backbone
from headstart.models.file import ModelSpec
from headstart.params.root import AugmentParams


def train(
    folder: Path, pretrained: dict[str, Any], card: ModelSpec, changes: AugmentParams, **how: int
) -> dict[str, float]:
    """Seconds of both phases and test accuracy, of pictures in train, val and test folders of class folders.

    Args:
        folder: of the pictures.
        pretrained: the backbone's tensors.
        card: backbone, labels and what the backbone wants to see.
        changes: how far pictures are changed; the same strength as ours.
        how: batch_size, head_epochs, tune_epochs, workers.
    """
    loaders = {name: _loader(folder / name, card, changes, how) for name in ("train", "val", "test")}
    backbone = create_backbone(card.backbone)
    backbone.load_state_dict(pretrained)
    network = nn.Sequential(backbone, nn.Dropout(0.2), nn.Linear(card.features, len(card.labels)))
    begin = time.perf_counter()
    backbone.requires_grad_(False)
    _fit(network, loaders, torch.optim.Adam(network[2].parameters(), lr=1e-3), how["head_epochs"])
    middle = time.perf_counter()
    backbone.requires_grad_(True)
    _fit(network, loaders, torch.optim.Adam(network.parameters(), lr=1e-4), how["tune_epochs"])
    end = time.perf_counter()
    accuracy = _accuracy(network, loaders["test"])
    return {"head": middle - begin, "tune": end - middle, "accuracy": accuracy}


def _loader(folder: Path, card: ModelSpec, changes: AugmentParams, how: dict[str, int]) -> Any:
    size = card.input.size
    plain = [
        transforms.Resize((size, size)),
        transforms.ToTensor(),
        transforms.Normalize(card.input.mean, card.input.std),
    ]
    light = {name: getattr(changes, name) for name in ("brightness", "contrast", "saturation", "hue")}
    changed = [
        plain[0],
        transforms.RandomHorizontalFlip(changes.horizontal_flip),
        transforms.RandomVerticalFlip(changes.vertical_flip),
        transforms.RandomAffine(
            changes.rotation, (changes.shift, changes.shift), (1 - changes.zoom, 1 + changes.zoom), changes.shear
        ),
        transforms.ColorJitter(**light),
        *plain[1:],
    ]
    train = folder.name == "train"
    pictures = datasets.ImageFolder(folder, transforms.Compose(changed if train else plain))
    return DataLoader(pictures, how["batch_size"], shuffle=train, num_workers=how["workers"])


def _fit(network: nn.Module, loaders: dict[str, Any], optimizer: Any, epochs: int) -> None:
    criterion, best, kept = nn.CrossEntropyLoss(), -1.0, network.state_dict()
    for _ in range(epochs):
        network.train()
        for pictures, labels in loaders["train"]:
            optimizer.zero_grad()
            loss = criterion(network(pictures), labels)
            loss.backward()
            optimizer.step()
        if (accuracy := _accuracy(network, loaders["val"])) > best:
            best, kept = accuracy, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)


@torch.no_grad()
def _accuracy(network: nn.Module, loader: Any) -> float:
    network.eval()
    right = [(network(pictures).argmax(1) == labels) for pictures, labels in loader]
    return torch.cat(right).float().mean().item()
