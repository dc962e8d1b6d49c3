"""What fine-tuning shows the network, epoch after epoch: pictures changed anew, or kept activations."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from headstart import augment, coco, pixels
from headstart.batches import floats, normalise, outputs, row_outputs
from headstart.classify import Classifier
from headstart.coco import Image
from headstart.compute import Compute
from headstart.cut import cut
from headstart.embed import Trunk, activations
from headstart.modelfile import Card
from headstart.params import Params


@dataclass(frozen=True)
class Lessons:
    """`network` takes what `inputs` gives for rows of the training set in an epoch; `val` is what it says of val."""

    network: Classifier
    inputs: Callable[[Tensor, int], Tensor]
    val: Callable[[], Tensor]


def fresh(network: Classifier, params: Params, card: Card, compute: Compute, root: Path) -> Lessons:
    """Every epoch changes the training pictures anew, and the whole network runs on them."""
    train, val = (coco.read(root / f"stages/split/{name}.json").images for name in ("train", "val"))
    seen, held = (pixels.load(images, root, card.input, "decode") for images in (train, val))

    def inputs(rows: Tensor, epoch: int) -> Tensor:
        pictures = floats(seen[rows.numpy()], compute.device)
        drawn = [augment.draw(params.augment, params.seed, train[row].sha256, f"epoch {epoch}") for row in rows]
        return normalise(augment.apply_batch(pictures, drawn), card.input)

    return Lessons(network, inputs, lambda: outputs(network, held, card.input, compute))


def cached(network: Classifier, frozen: set[str], trunk: Trunk, params: Params) -> Lessons:
    """The frozen blocks ran once on originals and stored copies; what is above them runs on what they said.

    A picture shows itself and its copies in turn, one an epoch, beginning anywhere.
    """
    depth, root = params.fine_tune.freeze_depth, trunk.root
    upper = Classifier(cut(network.trunk, frozen, trunk.wanted.size).upper, network.head)
    train, val = (coco.read(root / f"stages/split/{name}.json").images for name in ("train", "val"))
    views = _views(train, coco.read(root / "stages/augment/train.json").images)
    rows_of = activations([*(image for some in views for image in some), *val], trunk, depth)
    held = [rows_of[image.sha256] for image in val]

    def inputs(rows: Tensor, epoch: int) -> Tensor:
        shown = (views[row][(_first(params.seed, train[row]) + epoch) % len(views[row])] for row in rows)
        return torch.stack([rows_of[image.sha256] for image in shown]).to(trunk.compute.device)

    return Lessons(upper, inputs, lambda: row_outputs(upper, held, trunk.compute))


def _views(originals: tuple[Image, ...], stored: tuple[Image, ...]) -> list[list[Image]]:
    views = {image.id: [image] for image in originals}
    for image in stored:
        if image.copy_of is not None:
            views[image.copy_of].append(image)
    return list(views.values())


def _first(seed: int, image: Image) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}|{image.sha256}".encode()).digest()[:4], "little")
