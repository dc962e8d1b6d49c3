"""Fine-tuning batches of a classifier: pictures augmented anew every epoch, or cached activations of frozen blocks."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from headstart.augment.transforms import sample_transform, transform_batch
from headstart.base.manifest import Image, read_manifest
from headstart.base.units import unit_numbers
from headstart.engine.device import Compute
from headstart.engine.inference import normalize_images, run_inference, run_inference_on_rows, to_float_tensor
from headstart.engine.pixels import load_pixels_or_lazy
from headstart.engine.streams import send
from headstart.features.embeddings import compute_activations
from headstart.features.frozen_backbone import FrozenBackbone
from headstart.features.split_network import split_features
from headstart.models import classifier
from headstart.models.classifier import Classifier
from headstart.models.file import ModelSpec, strip_prefix
from headstart.models.freeze import list_blocks
from headstart.models.pretrained import load_backbone
from headstart.params.root import Params
from headstart.training.batches import Batch, TrainableNetwork, TrainingBatches, ValOutcome, labeled_hashes
from headstart.training.mixup import make_mixup


def load_classifier(
    tensors: dict[str, Tensor], spec: ModelSpec, params: Params, compute: Compute, root: Path
) -> TrainableNetwork:
    """A classifier and its batches for fine-tuning; a `fine_tune.LoadNetwork`."""
    network = classifier.build(tensors, spec)

    def make_batches(frozen: set[str]) -> TrainingBatches:
        if not params.fine_tune.cache_frozen:
            return make_augmented(network, params, spec, compute, root)
        pretrained = strip_prefix("trunk.", tensors)
        build = partial(load_backbone, spec, pretrained)
        backbone = FrozenBackbone.of(build, pretrained, spec, compute, root, params.train.cache_gb)
        return make_cached(network, frozen, backbone, params, spec)

    return TrainableNetwork(network, list_blocks(network.trunk), frozenset(), make_batches)


def make_augmented(
    network: Classifier, params: Params, spec: ModelSpec, compute: Compute, root: Path
) -> TrainingBatches:
    """The whole network on training pictures that are augmented anew every epoch."""
    train, val = (read_manifest(root / f"stages/split/{name}.json").images for name in ("train", "val"))
    pixels, val_pixels = (
        load_pixels_or_lazy(params.train.cache_gb, images, root, spec.input) for images in (train, val)
    )

    def make_inputs(rows: Tensor, epoch: int) -> Tensor:
        pictures = to_float_tensor(pixels[rows.numpy()], compute.device)
        transforms = [
            sample_transform(params.augment, params.seed, train[row].sha256, f"epoch {epoch}") for row in rows
        ]
        return normalize_images(transform_batch(pictures, transforms), spec.input)

    def val_logits() -> Tensor:
        return run_inference(network, val_pixels, spec.input, compute, shared=True)

    return _make_batches(network, make_inputs, val_logits, (train, val), params, spec)


def make_cached(
    network: Classifier, frozen: set[str], backbone: FrozenBackbone, params: Params, spec: ModelSpec
) -> TrainingBatches:
    """What stands on the frozen blocks, on their cached activations of the originals and the stored copies.

    The views of a picture, the original and its copies, take turns, one an epoch, starting at a random one.

    Args:
        network: the whole network.
        frozen: names of the backbone's frozen parameters.
        backbone: as it was before training; its first `fine_tune.freeze_depth` blocks are cached.
        params: all of params.yaml.
        spec: of the model.
    """
    root, compute = backbone.root, backbone.compute
    parts = split_features(network.trunk, network.levels, frozen, backbone.input_spec.size)
    upper = Classifier(parts.upper, network.head)
    train, val = (read_manifest(root / f"stages/split/{name}.json").images for name in ("train", "val"))
    views = _list_views(train, read_manifest(root / "stages/augment/train.json").images)
    images = [*(image for of_picture in views for image in of_picture), *val]
    activations = compute_activations(images, backbone, params.fine_tune.freeze_depth)
    val_rows = [activations[image.sha256] for image in val]

    def make_inputs(rows: Tensor, epoch: int) -> Tensor:
        chosen = (views[row][(_first_view(params.seed, train[row]) + epoch) % len(views[row])] for row in rows)
        return send(torch.stack([activations[image.sha256] for image in chosen]), compute.device)

    def val_logits() -> Tensor:
        return run_inference_on_rows(upper, val_rows, compute, shared=True)

    return _make_batches(upper, make_inputs, val_logits, (train, val), params, spec)


def _make_batches(
    network: Classifier,
    make_inputs: Callable[[Tensor, int], Tensor],
    val_logits: Callable[[], Tensor],
    splits: tuple[tuple[Image, ...], tuple[Image, ...]],
    params: Params,
    spec: ModelSpec,
) -> TrainingBatches:
    """Batches of (train, val); `make_inputs` takes rows of train and the epoch."""
    section = params.fine_tune
    numbers, val_targets = (classifier.encode_targets(images, spec.labels) for images in splits)
    weights = classifier.class_weights(numbers, len(spec.labels), section)
    targets = classifier.training_targets(splits[0], spec.labels)

    def make_batch(rows: Tensor, epoch: int) -> Batch:
        inputs = make_inputs(rows, epoch)
        return inputs, send(targets[rows], inputs.device)

    def val_outcome() -> ValOutcome:
        logits = val_logits()
        metrics = classifier.compute_val_metrics(logits, val_targets, weights)
        return ValOutcome(metrics, _picture_losses(logits, val_targets, weights))

    key = [labeled_hashes(images) for images in splits], [image.confidence for image in splits[0]]
    return TrainingBatches(
        network,
        file_names=[image.file_name for image in splits[0]],
        checkpoint_key=[key, params.augment.model_dump(), params.seed],
        make_batch=make_batch,
        loss=lambda logits, batch_targets: classifier.loss(logits, batch_targets, weights, section.label_smoothing),
        validate=lambda: val_outcome().metrics,
        val_outcome=val_outcome,
        val_units=unit_numbers(splits[1]),
        labels=numbers,
        mixup=make_mixup(section.mixup, section.cutmix, len(spec.labels)),
    )


def _picture_losses(logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """The loss of each picture, (n,), whose mean is val_loss: of rare labels it counts more where they are weighted."""
    losses = functional.cross_entropy(logits.float(), targets, weight=weights, reduction="none")
    return losses if weights is None else losses / weights[targets].mean()


def _list_views(originals: tuple[Image, ...], stored: tuple[Image, ...]) -> list[list[Image]]:
    """For each original itself and its stored copies."""
    views = {image.id: [image] for image in originals}
    for image in stored:
        if image.copy_of is not None:
            views[image.copy_of].append(image)
    return list(views.values())


def _first_view(seed: int, image: Image) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}|{image.sha256}".encode()).digest()[:4], "little")
