"""Head training of a classifier (linear probe): a new head on cached features of the frozen backbone.

A linear or kernel head is solved (`head_fit`); hidden layers train in epochs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from headstart.base import distributed
from headstart.base.arrays import Ints
from headstart.base.errors import UserError
from headstart.base.files import csv_text, write_json, write_text
from headstart.base.manifest import Image, read_manifest
from headstart.base.threads import one_torch_thread
from headstart.base.units import unit_name
from headstart.engine.device import Compute, configure_torch
from headstart.features.embeddings import compute_embeddings
from headstart.features.frozen_backbone import FrozenBackbone
from headstart.models import classifier
from headstart.models.file import ModelSpec, save_model_file
from headstart.models.pretrained import load_backbone, load_pretrained
from headstart.params.root import Params
from headstart.training.batch_norm import trains_batch_norm
from headstart.training.batches import Batch, labeled_hashes
from headstart.training.checkpoint import Checkpoints
from headstart.training.head_fit import fit
from headstart.training.loop import TrainLoop, train_loop
from headstart.training.loop_state import ValMetrics
from headstart.training.optimizer import param_groups
from headstart.training.sampler import BatchSampler


@dataclass(frozen=True)
class _Data:
    """Features and pictures that a head learns from and is validated on."""

    train: tuple[Image, ...]
    val: tuple[Image, ...]
    features: Tensor  # (n, f)
    val_features: Tensor
    spec: ModelSpec
    backbone_sha256: str
    compute: Compute


def train_classifier_head(params: Params, root: Path, loop: TrainLoop | None = None) -> None:
    """Write stages/train-head: the pretrained backbone with a trained head, history.csv, metrics.json.

    Args:
        params: all of params.yaml. Of fine_tune only what is to be cached for it is read; no result depends on that.
        root: the repository root.
        loop: the training loop; None: `train_loop`.

    Raises:
        UserError: a stage before this one has not run, the backbone does not take the picture size, the loss
            diverges, or a loop is given for a head that is solved.
    """
    kind, section = params.model.head.kind, params.train_head
    fitted = params.model.head.is_fitted
    if fitted and loop is not None:
        raise UserError(
            f"params.yaml: model.head.kind: {kind}: this head is solved, at no learning rate; "
            "try `headstart lr-find fine-tune`, or kind: mlp with hidden layers"
        )
    compute = configure_torch(params.train, params.seed)
    train, val = read_manifest(root / "stages/augment/train.json"), read_manifest(root / "stages/split/val.json")
    spec, pretrained = load_pretrained("classify", params.model, train.labels(), root)
    backbone = FrozenBackbone.of(
        partial(load_backbone, spec, pretrained), pretrained, spec, compute, root, params.train.cache_gb
    )
    depth = params.fine_tune.freeze_depth if params.fine_tune.cache_frozen else 0
    embeddings = compute_embeddings([*train.images, *val.images], backbone, depth, spec.head.features)
    count = len(train.images)
    data = _Data(train.images, val.images, embeddings[:count], embeddings[count:], spec, backbone.sha256, compute)
    print(f"train-head: {count} embeddings of {spec.features} features, {len(spec.labels)} labels")
    if fitted and (unused := section.unused_in_fit()):
        print(f"train-head: a {kind} head is solved, not trained in epochs; no effect: train_head.{', '.join(unused)}")
    out = root / "stages/train-head"
    if fitted:
        head, metrics = _fit(data, params, out / "history.csv")
        checkpoints = None
    else:
        with one_torch_thread():  # a step is too small for more threads
            head, metrics, checkpoints = _train(data, params, root, loop or train_loop)
    tensors = {f"trunk.{name}": tensor for name, tensor in pretrained.items()}
    tensors |= {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    save_model_file(out / "model.safetensors", tensors, spec)
    write_json(out / "metrics.json", metrics)
    if checkpoints:
        checkpoints.mark_finished()


def _fit(data: _Data, params: Params, history: Path) -> tuple[nn.Module, dict[str, float]]:
    """The solved head, and metrics.json; history.csv has one row. Only the main process returns."""
    distributed.shutdown_distributed()
    section, labels = params.train_head, data.spec.labels
    targets = classifier.soft_targets(data.train, labels, section.label_smoothing)
    fitted = fit(data.features, targets, data.spec.head, section, _training_units(data.train), params.seed)
    val_targets = classifier.encode_targets(data.val, labels)
    weights = classifier.class_weights(classifier.encode_targets(data.train, labels), len(labels), section)
    with torch.no_grad():
        metrics = classifier.compute_val_metrics(fitted.head(data.val_features), val_targets, weights)
        train_loss = nn.functional.cross_entropy(fitted.head(data.features), targets).item()
    bandwidth = "" if fitted.bandwidth is None else f", bandwidth {fitted.bandwidth:g} of the median distance"
    print(f"  weight decay {fitted.weight_decay:g}{bandwidth}")
    print("  " + "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in metrics.items()))
    row = {"epoch": 1, "lr": 0.0, "train_loss": train_loss, **metrics}
    write_text(history, csv_text(list(row), [[f"{value:.6g}" for value in row.values()]]))
    return fitted.head, {"best_epoch": 1, "epochs": 1, "weight_decay": fitted.weight_decay, **metrics}


def _training_units(images: tuple[Image, ...]) -> Ints:
    """Number of each picture's unit (n,); a stored copy has that of its original."""
    originals = {image.id: image for image in images if image.copy_of is None}
    names = [unit_name(image if image.copy_of is None else originals[image.copy_of]) for image in images]
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)


def _train(data: _Data, params: Params, root: Path, loop: TrainLoop) -> tuple[nn.Module, dict[str, float], Checkpoints]:
    """The head trained in epochs, metrics.json, and the checkpoints that can go once the head is on disk."""
    spec, section, features = data.spec, params.train_head.for_loop(), data.features
    targets, val_targets = (classifier.encode_targets(images, spec.labels) for images in (data.train, data.val))
    learned = classifier.training_targets(data.train, spec.labels)
    torch.manual_seed(params.seed)
    head = classifier.create_head(spec.features, len(spec.labels), spec.head)
    weights = classifier.class_weights(targets, len(spec.labels), section)
    sampler = BatchSampler(len(features), targets, section, params.seed, trains_batch_norm(head))
    section = section.for_batches(sampler.steps)

    def batches(epoch: int, first: int) -> Iterator[Batch]:
        for rows in sampler.rank_rows(epoch, first, "train-head"):
            yield features[rows], learned[rows]

    @torch.no_grad()
    def validate() -> ValMetrics:
        return classifier.compute_val_metrics(head(data.val_features), val_targets, weights)

    checkpoints = Checkpoints.for_stage(
        root,
        "train-head",
        data.backbone_sha256,
        data.compute.description(),
        params.seed,
        spec.model_dump(),
        section.model_dump(),
        [labeled_hashes(images) for images in (data.train, data.val)],
        [image.confidence for image in data.train],
    )
    best = loop(
        head,
        param_groups(head),
        batches=batches,
        steps=sampler.steps,
        loss=lambda logits, labels: classifier.loss(logits, labels, weights, section.label_smoothing),
        validate=validate,
        params=section,
        history=root / "stages/train-head/history.csv",
        stage="train-head",
        batch_files=lambda epoch, batch: [data.train[row].file_name for row in sampler.rows(epoch)[batch]],
        checkpoints=checkpoints,
    )
    return head, best.to_metrics(), checkpoints
