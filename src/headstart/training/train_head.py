"""Head training of a classifier (linear probe): a new head on cached features of the frozen backbone."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from headstart.base.files import write_json
from headstart.base.manifest import Manifest, read_manifest
from headstart.engine.device import configure_torch
from headstart.features.embeddings import FrozenBackbone, compute_embeddings
from headstart.models import classifier
from headstart.models.file import save_model_file
from headstart.models.pretrained import load_backbone, load_pretrained
from headstart.params.root import Params
from headstart.training.batch_norm import trains_batch_norm
from headstart.training.batches import Batch, labeled_hashes
from headstart.training.checkpoint import Checkpoints
from headstart.training.loop import TrainLoop, train_loop
from headstart.training.loop_state import ValMetrics
from headstart.training.optimizer import param_groups
from headstart.training.sampler import BatchSampler


def train_classifier_head(params: Params, root: Path, loop: TrainLoop | None = None) -> None:
    """Write stages/train-head: the pretrained backbone with a trained head, history.csv, metrics.json.

    Args:
        params: all of params.yaml. Of fine_tune only what is to be cached for it is read; no result depends on that.
        root: the repository root.
        loop: the training loop; None: `train_loop`.

    Raises:
        UserError: a stage before this one has not run, the backbone does not take the picture size, or the loss
            diverges.
    """
    compute = configure_torch(params.train, params.seed)
    train, val = read_manifest(root / "stages/augment/train.json"), read_manifest(root / "stages/split/val.json")
    spec, pretrained = load_pretrained("classify", params.model, train.labels(), root)
    build = partial(load_backbone, spec, pretrained)
    backbone = FrozenBackbone.of(build, pretrained, spec, compute, root, params.train.cache_gb)
    features, val_features = _compute_features(train, val, backbone, params)
    targets, val_targets = (classifier.encode_targets(split.images, spec.labels) for split in (train, val))
    torch.set_num_threads(1)  # a step is too small for more threads
    torch.manual_seed(params.seed)
    head = classifier.create_head(spec.features, len(spec.labels), spec.head)
    section, out = params.train_head, root / "stages/train-head"
    weights = classifier.class_weights(targets, len(spec.labels), section)
    sampler = BatchSampler(len(features), targets, section, params.seed, trains_batch_norm(head))

    def batches(epoch: int, first: int) -> Iterator[Batch]:
        for rows in sampler.rank_rows(epoch, first, "train-head"):
            yield features[rows], targets[rows]

    @torch.no_grad()
    def validate() -> ValMetrics:
        return classifier.compute_val_metrics(head(val_features), val_targets, weights)

    checkpoints = Checkpoints.for_stage(
        root,
        "train-head",
        backbone.sha256,
        compute.description(),
        params.seed,
        spec.model_dump(),
        section.model_dump(),
        [labeled_hashes(split.images) for split in (train, val)],
    )
    print(f"train-head: {len(features)} embeddings of {spec.features} features, {len(spec.labels)} labels")
    best = (loop or train_loop)(
        head,
        param_groups(head),
        batches=batches,
        steps=sampler.steps,
        loss=lambda logits, labels: classifier.loss(logits, labels, weights, section.label_smoothing),
        validate=validate,
        params=section,
        history=out / "history.csv",
        stage="train-head",
        batch_files=lambda epoch, batch: [train.images[row].file_name for row in sampler.rows(epoch)[batch]],
        checkpoints=checkpoints,
    )
    tensors = {f"trunk.{name}": tensor for name, tensor in pretrained.items()}
    tensors |= {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    save_model_file(out / "model.safetensors", tensors, spec)
    write_json(out / "metrics.json", best.to_metrics())
    checkpoints.mark_finished()


def _compute_features(
    train: Manifest, val: Manifest, backbone: FrozenBackbone, params: Params
) -> tuple[Tensor, Tensor]:
    """Features (n, features) of the training and of the validation pictures, from the cache where they are in it."""
    depth = params.fine_tune.freeze_depth if params.fine_tune.cache_frozen else 0
    embeddings = compute_embeddings([*train.images, *val.images], backbone, depth)
    return embeddings[: len(train.images)], embeddings[len(train.images) :]
