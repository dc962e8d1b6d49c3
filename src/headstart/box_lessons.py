"""What a detector is shown: pictures with boxes, as they are stored, or both changed anew every epoch.

Of stored pictures the frozen trunk's maps are kept, and pyramid and head are shown these.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from headstart import changes, coco, detect, pixels
from headstart.batches import VAL_BATCH, floats, normalise, outputs, row_outputs
from headstart.changes import Draw
from headstart.coco import Manifest
from headstart.compute import Compute, trial_pictures
from headstart.detect import Detector
from headstart.embed import Trunk, rows
from headstart.fit import Batch
from headstart.fit_state import Scores
from headstart.kept import in_bytes
from headstart.lessons import Lessons
from headstart.modelfile import Card
from headstart.moves import mosaic, move_targets
from headstart.params import Params


class Below(nn.Module):
    """The frozen trunk: pictures (n, 3, s, s) -> rows (n, width), its maps one after another, channels last.

    Attributes:
        shapes: height, width and channels of each map.
    """

    def __init__(self, network: Detector) -> None:
        super().__init__()
        self.trunk, self.levels = network.trunk, network.levels
        with torch.no_grad():
            self.shapes = [each.shape[1:] for each in self._maps(trial_pictures(network.size, 1))]
        self.width = sum(map(math.prod, self.shapes))

    def _maps(self, pictures: Tensor) -> list[Tensor]:
        return [each.permute(0, 2, 3, 1) for each in detect.trunk_maps(self.trunk, pictures, self.levels)]

    def forward(self, pictures: Tensor) -> Tensor:
        return torch.cat([each.flatten(1) for each in self._maps(pictures)], 1)


class Above(nn.Module):
    """Pyramid and head: rows of maps of these shapes -> what the detector says of their pictures."""

    def __init__(self, network: Detector, shapes: Sequence[torch.Size]) -> None:
        super().__init__()
        self.network, self.shapes = network, shapes

    def forward(self, rows: Tensor, targets: Tensor | None = None) -> Tensor:
        parts = torch.split(rows, [math.prod(shape) for shape in self.shapes], 1)
        maps = [part.reshape(-1, *shape).permute(0, 3, 1, 2) for part, shape in zip(parts, self.shapes, strict=True)]
        raised = self.network.raised([each.contiguous(memory_format=torch.channels_last) for each in maps])
        said: Tensor = self.network.head(raised, targets)
        return said


def stored(network: Detector, params: Params, card: Card, trunk: Trunk) -> Lessons:
    """The head's lessons: originals and stored copies; the frozen trunk runs once on each, and its maps are kept.

    Where they take more than train.cache_gb, the trunk runs on every picture in every epoch.
    """
    root, compute = trunk.root, trunk.compute
    train, val = coco.read(root / "stages/augment/train.json"), coco.read(root / "stages/split/val.json")
    targets, below = detect.targets(train, card.input), Below(network)
    images = [*train.images, *val.images]
    size = len(images) * below.width * compute.dtype.itemsize

    def wanted(some: Tensor) -> Tensor:
        return detect.padded([targets[row] for row in some]).to(compute.device)

    if size > params.train.cache_gb * 1e9:
        seen = pixels.within(params.train.cache_gb, train.images, root, card.input)

        def shown(some: Tensor, epoch: int) -> Batch:
            pictures, boxes = normalise(floats(seen[some.numpy()], compute.device), card.input), wanted(some)
            return (pictures, boxes), boxes

        return _lessons(network, train, val, shown, None, _looked(network, val, params, card, compute, root), card)
    print(f"train-head: the trunk's maps of {len(images)} pictures, {in_bytes(size)} in .cache/activations", flush=True)
    found = rows(images, trunk, lambda: below, f"maps {list(network.levels)} of a detector", VAL_BATCH)

    def batch(some: Tensor, epoch: int) -> Batch:
        kept, boxes = torch.stack([found[train.images[row].sha256] for row in some]), wanted(some)
        return (kept.to(compute.device), boxes), boxes

    held, above = [found[image.sha256] for image in val.images], Above(network, below.shapes)
    return _lessons(
        network,
        train,
        val,
        batch,
        "kept maps",
        lambda: row_outputs(above, held, compute, VAL_BATCH, shared=True),
        card,
        above,
    )


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
    val = coco.read(root / "stages/split/val.json")
    return _lessons(network, train, val, batch, changed, _looked(network, val, params, card, compute, root), card)


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


def _looked(
    network: Detector, val: Manifest, params: Params, card: Card, compute: Compute, root: Path
) -> Callable[[], Tensor]:
    """What the network, as it is by then, says of the validation pictures."""
    held = pixels.within(params.train.cache_gb, val.images, root, card.input)
    return lambda: outputs(network, held, card.input, compute, VAL_BATCH, shared=True)


def _lessons(
    network: Detector,
    train: Manifest,
    val: Manifest,
    batch: Callable[[Tensor, int], Batch],
    changed: object,
    looked: Callable[[], Tensor],
    card: Card,
    above: nn.Module | None = None,
) -> Lessons:
    """`above`: what takes a batch's inputs, if not the network itself."""
    targets = detect.targets(val, card.input)

    def loss(said: Tensor, wanted: Tensor) -> Tensor:
        return detect.loss(network, said, wanted)

    def validate() -> Scores:
        return detect.score(network, looked(), targets, val, card)

    facts = [[part.model_dump(mode="json", exclude={"images": {"__all__": {"id"}}}) for part in (train, val)], changed]
    return Lessons(above or network, [image.file_name for image in train.images], facts, batch, loss, validate)
