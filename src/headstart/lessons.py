"""What a classifier is shown while it is fine-tuned: pictures changed anew every epoch, or kept activations."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from headstart import changes, classify, coco, pixels
from headstart.batches import floats, normalise, outputs, row_outputs
from headstart.classify import Classifier
from headstart.coco import Image
from headstart.compute import Compute
from headstart.cut import cut
from headstart.embed import Trunk, activations
from headstart.fit import Batch
from headstart.fit_state import Scores
from headstart.mix import Mix, mixer
from headstart.modelfile import Card
from headstart.params import Params


@dataclass(frozen=True)
class Lessons:
    """What one fit needs to know of its pictures.

    Attributes:
        network: takes the inputs of a batch.
        names: the pictures' files, one a row.
        facts: what the batches depend on besides the rows and the epoch; plain values, a checkpoint's key.
        batch: rows of the training set, epoch -> inputs and targets; in a thread of its own, ahead of the training,
            so that it must leave torch's random state alone.
        loss: (what the network says, targets) -> scalar.
        validate: scores of the network as it is, val_loss among them.
        labels: of a classifier, the number of each row's label.
        mix: what then mixes a batch with itself: (inputs, targets, *key) -> inputs and targets.
    """

    network: nn.Module
    names: Sequence[str]
    facts: object
    batch: Callable[[Tensor, int], Batch]
    loss: Callable[[Tensor, Tensor], Tensor]
    validate: Callable[[], Scores]
    labels: Tensor | None = None
    mix: Mix | None = None


def fresh(network: Classifier, params: Params, card: Card, compute: Compute, root: Path) -> Lessons:
    """Every epoch changes the training pictures anew, and the whole network runs on them."""
    train, val = (coco.read(root / f"stages/split/{name}.json").images for name in ("train", "val"))
    seen, held = (pixels.within(params.train.cache_gb, some, root, card.input) for some in (train, val))

    def inputs(rows: Tensor, epoch: int) -> Tensor:
        pictures = floats(seen[rows.numpy()], compute.device)
        drawn = [changes.draw(params.augment, params.seed, train[row].sha256, f"epoch {epoch}") for row in rows]
        return normalise(changes.apply_batch(pictures, drawn), card.input)

    def said() -> Tensor:
        return outputs(network, held, card.input, compute, shared=True)

    return _lessons(network, inputs, said, (train, val), params, card)


def cached(network: Classifier, frozen: set[str], trunk: Trunk, params: Params, card: Card) -> Lessons:
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

    def said() -> Tensor:
        return row_outputs(upper, held, trunk.compute, shared=True)

    return _lessons(upper, inputs, said, (train, val), params, card)


def _lessons(
    network: Classifier,
    inputs: Callable[[Tensor, int], Tensor],
    val: Callable[[], Tensor],
    images: tuple[tuple[Image, ...], tuple[Image, ...]],
    params: Params,
    card: Card,
) -> Lessons:
    section = params.fine_tune
    targets, val_targets = (classify.targets(some, card.labels) for some in images)
    balance = classify.class_weights(targets, len(card.labels), section)

    def batch(rows: Tensor, epoch: int) -> Batch:
        seen = inputs(rows, epoch)
        return seen, targets[rows].to(seen.device)

    def loss(logits: Tensor, wanted: Tensor) -> Tensor:
        return classify.loss(logits, wanted, balance, section.label_smoothing)

    names = [image.file_name for image in images[0]]
    facts = [[(image.sha256, image.label) for image in some] for some in images]
    known = [facts, params.augment.model_dump(), params.seed]
    mix = mixer(section.mixup, section.cutmix, len(card.labels))
    return Lessons(network, names, known, batch, loss, lambda: classify.score(val(), val_targets), targets, mix)


def _views(originals: tuple[Image, ...], stored: tuple[Image, ...]) -> list[list[Image]]:
    views = {image.id: [image] for image in originals}
    for image in stored:
        if image.copy_of is not None:
            views[image.copy_of].append(image)
    return list(views.values())


def _first(seed: int, image: Image) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}|{image.sha256}".encode()).digest()[:4], "little")
