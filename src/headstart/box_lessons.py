"""What a detector is shown: pictures with boxes, as they are stored, or both changed anew every epoch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from headstart import changes, coco, detect, pixels
from headstart.batches import VAL_BATCH, floats, normalise, outputs
from headstart.changes import Draw
from headstart.coco import Manifest
from headstart.compute import Compute
from headstart.detect import Detector
from headstart.fit import Batch, Scores
from headstart.lessons import Lessons
from headstart.modelfile import Card
from headstart.moves import mosaic, move_targets
from headstart.params import Params


def stored(network: Detector, params: Params, card: Card, compute: Compute, root: Path) -> Lessons:
    """The head's lessons: originals and stored copies, through the frozen trunk each time.

    Its maps are not kept: the trunk is a small part of a step, and a picture's maps are several times its pixels.
    """
    train = coco.read(root / "stages/augment/train.json")
    seen = pixels.within(params.train.cache_gb, train.images, root, card.input)
    targets = detect.targets(train, card.input)

    def batch(rows: Tensor, epoch: int) -> Batch:
        pictures = normalise(floats(seen[rows.numpy()], compute.device), card.input)
        boxes = detect.padded([targets[row] for row in rows]).to(compute.device)
        return (pictures, boxes), boxes

    return _lessons(network, train, batch, None, params.train.cache_gb, card, compute, root)


def fresh(network: Detector, params: Params, card: Card, compute: Compute, root: Path) -> Lessons:
    """Every epoch changes the training pictures and their boxes anew; some are four pictures in one."""
    train = coco.read(root / "stages/split/train.json")
    seen = pixels.within(params.train.cache_gb, train.images, root, card.input)
    targets = detect.targets(train, card.input)

    def batch(rows: Tensor, epoch: int) -> Batch:
        pictures, boxes, drawn = [], [], []
        for row in rows.tolist():
            key = (params.seed, train.images[row].sha256, f"epoch {epoch}")
            change = changes.draw(params.augment, *key)
            some = _four(row, len(targets), params.augment.mosaic, change)
            shown = floats(seen[np.array(some)], compute.device)
            if len(some) > 1:
                change = _closer(change)
                picture, own = mosaic(list(shown), [targets[each] for each in some])
            else:
                picture, own = shown[0], targets[row]
            pictures.append(picture)
            boxes.append(move_targets(own, change, card.input.size))
            drawn.append(change)
        batched = torch.stack(pictures).contiguous(memory_format=torch.channels_last)
        inputs = normalise(changes.apply_batch(batched, drawn, grey=True), card.input)
        wanted = detect.padded(boxes).to(compute.device)
        return (inputs, wanted), wanted

    changed = [params.augment.model_dump(), params.seed]
    return _lessons(network, train, batch, changed, params.train.cache_gb, card, compute, root)


def _four(row: int, count: int, share: float, change: Draw) -> list[int]:
    """The picture alone, or with three others; which, is said by the draw's own seed."""
    rng = np.random.default_rng(change.seed)
    if rng.random() >= share:
        return [row]
    return [row, *rng.integers(0, count, 3).tolist()]


def _closer(change: Draw) -> Draw:
    """Up to twice as near, anywhere in the four pictures: things keep sizes between a half and all of their own."""
    rng = np.random.default_rng([change.seed, 1])
    zoom = rng.uniform(1, 2)
    x, y = rng.uniform(-0.5, 0.5, 2) * (zoom - 1)
    return replace(
        change, zoom=change.zoom * zoom, shift_x=change.shift_x + float(x), shift_y=change.shift_y + float(y)
    )


def _lessons(
    network: Detector,
    train: Manifest,
    batch: Callable[[Tensor, int], Batch],
    changed: object,
    cache_gb: float,
    card: Card,
    compute: Compute,
    root: Path,
) -> Lessons:
    val = coco.read(root / "stages/split/val.json")
    held = pixels.within(cache_gb, val.images, root, card.input)
    targets = detect.targets(val, card.input)

    def loss(said: Tensor, wanted: Tensor) -> Tensor:
        return detect.loss(network, said, wanted)

    def validate() -> Scores:
        said = outputs(network, held, card.input, compute, VAL_BATCH, shared=True)
        return detect.score(network, said, targets, val, card)

    facts = [[part.model_dump(mode="json", exclude={"images": {"__all__": {"id"}}}) for part in (train, val)], changed]
    return Lessons(network, [image.file_name for image in train.images], facts, batch, loss, validate)
