"""Heads on frozen features, out of fold: linear and kernel, last features and blocks', confidences, flipped copies.

Every picture of a project is answered once, by a head that was fitted on the other folds; units (groups and
near-duplicates) stay in one fold. Run `dvc repro split weights` first, in that project. Pictures and their flips are
embedded once, which takes most of the time.

    python benchmarks/heads.py [--root FOLDER] [--folds 5] [--seed 0] [--units near-duplicates group] [--flips]

Prints accuracy, log loss and CPU seconds of one fit for each kind of head, in the precision of `train.precision`.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image as Picture
from torch import Tensor

from headstart.base.arrays import Ints
from headstart.base.manifest import Image, read_manifest
from headstart.base.progress import track
from headstart.base.units import unit_numbers
from headstart.engine.cpu.optimize import optimize
from headstart.engine.device import configure_torch
from headstart.engine.equivalence import example_input
from headstart.engine.fold_batch_norm import fold_batch_norm
from headstart.engine.inference import run_inference
from headstart.engine.pixels import read_pixels
from headstart.images.links import group_linked
from headstart.images.oriented_hash import find_pairs, hash_coefficients
from headstart.models import classifier
from headstart.models.block_features import BlockFeatures
from headstart.models.pretrained import load_backbone, load_pretrained
from headstart.params.reader import load_params
from headstart.params.root import HeadParams
from headstart.params.training import TrainHeadParams
from headstart.training.head_fit import fit
from headstart.training.weight_decay_search import assign_folds

SHARD = 256  # pictures in memory at once
NEAR_DUPLICATE_BITS = 4


@dataclass(frozen=True)
class Data:
    """All pictures of a project: features (n, f) of each flip, the first `last` of them the pooled ones."""

    images: Sequence[Image]
    labels: Sequence[str]
    flips: Sequence[Tensor]
    last: int

    def features(self, flip: int, kind: Literal["last", "blocks"]) -> Tensor:
        """(n, f)."""
        return self.flips[flip][:, : self.last] if kind == "last" else self.flips[flip]


def read_data(root: Path, flips: int) -> Data:
    """Embed the pictures of stages/split; `flips` is 1, or 4 with horizontal, vertical and both flips."""
    params = load_params(root / "params.yaml")
    model = params.model.model_copy(update={"head": HeadParams(features="blocks")})
    manifests = [read_manifest(root / f"stages/split/{name}.json") for name in ("train", "val", "test")]
    images = sorted((image for manifest in manifests for image in manifest.images), key=lambda image: image.id)
    spec, pretrained = load_pretrained("classify", model, manifests[0].labels(), root)
    compute = configure_torch(params.train, params.seed)
    backbone, _ = fold_batch_norm(load_backbone(spec, pretrained), spec.input.size)
    network = compute.to_device(BlockFeatures(backbone, spec.levels).eval())
    network = optimize(network, compute, example_input(spec.input.size), training=False)  # type: ignore[assignment]
    rows: list[list[Tensor]] = [[] for _ in range(flips)]
    starts = range(0, len(images), SHARD)
    for start in track(starts, "embed", len(starts)):
        pixels = np.stack([read_pixels(root / image.file_name, spec.input) for image in images[start : start + SHARD]])
        for flip, flipped in enumerate((pixels, pixels[:, :, ::-1], pixels[:, ::-1], pixels[:, ::-1, ::-1])[:flips]):
            rows[flip].append(run_inference(network, flipped, spec.input, compute))
    return Data(images, spec.labels, [torch.cat(parts) for parts in rows], int(backbone.head_hidden_size))  # type: ignore[arg-type]


def find_units(images: Sequence[Image], kind: str, root: Path) -> Ints:
    """Number of each picture's unit: the split's, its group, or near-duplicates by the perceptual hash alone."""
    if kind == "split":
        return unit_numbers(images)
    if kind == "group":
        names: dict[str, int] = {}
        return np.array([names.setdefault(image.group or image.sha256, len(names)) for image in images])
    hashes = []
    for image in images:
        with Picture.open(root / image.file_name) as picture:
            hashes.append(hash_coefficients(picture))
    units = np.zeros(len(images), dtype=np.int64)
    for number, members in enumerate(group_linked(len(images), find_pairs(hashes, NEAR_DUPLICATE_BITS))):
        units[members] = number
    return units


def measure(data: Data, head: HeadParams, units: Ints, folds: Ints, *, soft: bool, flips: int) -> str:
    """A row of the table; `flips` are all learned from, and pictures are answered as they are."""
    images = data.images if soft else [image.model_copy(update={"confidence": None}) for image in data.images]
    targets = classifier.soft_targets(images, data.labels)
    numbers = classifier.encode_targets(images, data.labels)
    logits, seconds = torch.zeros(len(images), len(data.labels)), 0.0
    for fold in range(folds.max() + 1):
        train, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        features = torch.cat([data.features(flip, head.features)[train] for flip in range(flips)])
        started = time.process_time()
        learned = targets[train].repeat(flips, 1)
        fitted = fit(features, learned, head, TrainHeadParams(), np.tile(units[train], flips), seed=0)
        seconds += time.process_time() - started
        with torch.no_grad():
            logits[held_out] = fitted.head(data.features(0, head.features)[held_out])
    right = (logits.argmax(1) == numbers).float().mean().item()
    loss = torch.nn.functional.cross_entropy(logits, numbers).item()
    what = f"{head.kind} | {head.features} | {'yes' if soft else 'no'} | {'yes' if flips > 1 else 'no'}"
    return f"| {what} | {right:.3f} | {loss:.3f} | {seconds / (folds.max() + 1):.1f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path())
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the folds")
    parser.add_argument("--units", choices=("split", "group", "near-duplicates"), nargs="+", default=["split"])
    parser.add_argument("--flips", action="store_true", help="also with three flips of each picture to learn from")
    options = parser.parse_args()
    data = read_data(options.root, 4 if options.flips else 1)
    for kind in options.units:
        print_table(data, kind, options)


def print_table(data: Data, units_kind: str, options: argparse.Namespace) -> None:
    """One table, of one kind of units."""
    units = find_units(data.images, units_kind, options.root)
    numbers = classifier.encode_targets(data.images, data.labels).numpy()
    folds = assign_folds(numbers, units, options.folds, options.seed)
    has_confidences = any(image.confidence is not None for image in data.images)
    print(f"{len(data.images):,} pictures, {len(set(units.tolist())):,} units ({units_kind}), {options.folds} folds")
    print("| head | features | confidences | flips | accuracy | log loss | CPU s a fit |")
    print("|---|---|---|---|---|---|---|")
    for flips in (1, 4) if options.flips else (1,):
        for soft in (False, True) if has_confidences else (False,):
            for kind in ("linear", "kernel"):
                for features in ("last", "blocks"):
                    head = HeadParams(kind=kind, features=features)
                    print(measure(data, head, units, folds, soft=soft, flips=flips), flush=True)


if __name__ == "__main__":
    main()
