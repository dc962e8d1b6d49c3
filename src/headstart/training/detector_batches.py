"""Training batches of a detector: pictures with boxes, as stored for head training, augmented for fine-tuning.

Head training runs on cached feature maps of the frozen backbone.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from headstart.augment.box_transforms import make_mosaic, sample_mosaic_rows, transform_targets, zoom_into_mosaic
from headstart.augment.transforms import SampledTransform, sample_transform, transform_batch
from headstart.base.cache_dir import format_size
from headstart.base.manifest import Manifest, read_manifest
from headstart.engine.device import Compute
from headstart.engine.inference import (
    DETECTOR_BATCH,
    normalize_images,
    run_inference,
    run_inference_on_rows,
    to_float_tensor,
)
from headstart.engine.pixels import load_pixels_or_lazy
from headstart.engine.streams import send
from headstart.engine.tile_manifest import training_tiles
from headstart.features.embeddings import compute_activation_rows
from headstart.features.frozen_backbone import FrozenBackbone
from headstart.features.split_detector import BackboneToRows, HeadFromRows
from headstart.models import detector
from headstart.models.detector import Detector
from headstart.models.file import ModelSpec
from headstart.params.root import Params
from headstart.params.training import TrainingStageParams
from headstart.training.batches import Batch, TrainableNetwork, TrainingBatches
from headstart.training.loop_state import ValMetrics


def load_detector(
    tensors: dict[str, Tensor], spec: ModelSpec, params: Params, compute: Compute, root: Path
) -> TrainableNetwork:
    """A detector and its batches for fine-tuning; a `fine_tune.LoadNetwork`."""
    network = detector.build(tensors, spec)
    blocks, unused_parameters = detector.blocks_and_unused_parameters(network)

    def make_batches(_: set[str]) -> TrainingBatches:
        return make_augmented(network, params, spec, compute, root)

    return TrainableNetwork(network, blocks, unused_parameters, make_batches)


def make_cached(network: Detector, params: Params, spec: ModelSpec, backbone: FrozenBackbone) -> TrainingBatches:
    """Originals and stored copies for head training; the frozen backbone runs once on each.

    Where its feature maps take more than train.cache_gb, the whole network runs on every picture in every epoch.

    Args:
        network: the whole network.
        params: all of params.yaml.
        spec: of the model.
        backbone: the network's backbone, frozen.
    """
    root, compute = backbone.root, backbone.compute
    train, val = _read_manifests(root, ("stages/augment/train.json", "stages/split/val.json"), spec)
    lower = BackboneToRows(network)
    images = [*train.images, *val.images]
    size = len(images) * lower.width * compute.dtype.itemsize
    if size > params.train.cache_gb * 1e9:
        return _make_uncached(network, train, val, params, spec, compute, root)
    print(f"train-head: feature maps of {len(images)} pictures, {format_size(size)} in .cache/activations", flush=True)
    part = f"maps {list(network.levels)} of a detector"
    feature_maps = compute_activation_rows(images, backbone, lambda: lower, part, DETECTOR_BATCH)
    targets = detector.encode_targets(train, spec.input)

    def make_batch(rows: Tensor, epoch: int) -> Batch:
        inputs = torch.stack([feature_maps[train.images[row].sha256] for row in rows])
        boxes = _stack_targets(targets, rows, compute)
        return (send(inputs, compute.device), boxes), boxes

    upper, val_rows = HeadFromRows(network, lower.shapes), [feature_maps[image.sha256] for image in val.images]

    def val_outputs() -> Tensor:
        return run_inference_on_rows(upper, val_rows, compute, DETECTOR_BATCH, shared=True)

    weights = _class_weights(targets, params.train_head, spec)
    return _make_batches(network, train, val, make_batch, "cached feature maps", val_outputs, spec, weights, upper)


def _make_uncached(
    network: Detector, train: Manifest, val: Manifest, params: Params, spec: ModelSpec, compute: Compute, root: Path
) -> TrainingBatches:
    """The same pictures for the whole network."""
    pixels = load_pixels_or_lazy(params.train.cache_gb, train.images, root, spec.input)
    targets = detector.encode_targets(train, spec.input)

    def make_batch(rows: Tensor, epoch: int) -> Batch:
        pictures = normalize_images(to_float_tensor(pixels[rows.numpy()], compute.device), spec.input)
        boxes = _stack_targets(targets, rows, compute)
        return (pictures, boxes), boxes

    val_outputs = _make_val_outputs(network, val, params, spec, compute, root)
    weights = _class_weights(targets, params.train_head, spec)
    return _make_batches(network, train, val, make_batch, None, val_outputs, spec, weights)


def make_augmented(network: Detector, params: Params, spec: ModelSpec, compute: Compute, root: Path) -> TrainingBatches:
    """Training pictures and boxes that are augmented anew every epoch; some are mosaics of four pictures."""
    train, val = _read_manifests(root, ("stages/split/train.json", "stages/split/val.json"), spec)
    pixels = load_pixels_or_lazy(params.train.cache_gb, train.images, root, spec.input)
    targets = detector.encode_targets(train, spec.input)

    def augment(row: int, epoch: int) -> tuple[Tensor, Tensor, SampledTransform]:
        """A picture, a mosaic or not; its transformed boxes; and the transform that the picture has yet to get."""
        transform = sample_transform(params.augment, params.seed, train.images[row].sha256, f"epoch {epoch}")
        rows = sample_mosaic_rows(row, len(targets), params.augment.mosaic, transform)
        pictures = to_float_tensor(pixels[np.array(rows)], compute.device)
        if len(rows) > 1:
            transform = zoom_into_mosaic(transform)
            picture, boxes = make_mosaic(list(pictures), [targets[number] for number in rows])
        else:
            picture, boxes = pictures[0], targets[row]
        return picture, transform_targets(boxes, transform, spec.input.shape), transform

    def make_batch(rows: Tensor, epoch: int) -> Batch:
        pictures, boxes, transforms = zip(*(augment(row, epoch) for row in rows.tolist()), strict=True)
        stacked = torch.stack(pictures).contiguous(memory_format=torch.channels_last)
        inputs = normalize_images(transform_batch(stacked, transforms, gray_fill=True), spec.input)
        padded = send(detector.pad_targets(boxes), compute.device)
        return (inputs, padded), padded

    augmentation = [params.augment.model_dump(), params.seed]
    val_outputs = _make_val_outputs(network, val, params, spec, compute, root)
    weights = _class_weights(targets, params.fine_tune, spec)
    return _make_batches(network, train, val, make_batch, augmentation, val_outputs, spec, weights)


def _class_weights(targets: list[Tensor], section: TrainingStageParams, spec: ModelSpec) -> Tensor | None:
    """A weight for each label's boxes in the loss (labels,); None: all are 1."""
    return detector.balanced_weights(targets, len(spec.labels)) if section.class_weights == "balanced" else None


def _read_manifests(root: Path, files: Sequence[str], spec: ModelSpec) -> list[Manifest]:
    """These manifests; with `model.tiles` those of their pictures' tiles."""
    return [training_tiles(read_manifest(root / file), spec.input.tiles) for file in files]


def _stack_targets(targets: list[Tensor], rows: Tensor, compute: Compute) -> Tensor:
    """Targets (n, m, 5) of these rows, padded, on the device."""
    return send(detector.pad_targets([targets[row] for row in rows]), compute.device)


def _make_val_outputs(
    network: Detector, val: Manifest, params: Params, spec: ModelSpec, compute: Compute, root: Path
) -> Callable[[], Tensor]:
    """A function that returns the network's outputs, in its state at the call, for the validation pictures."""
    pixels = load_pixels_or_lazy(params.train.cache_gb, val.images, root, spec.input)
    return lambda: run_inference(network, pixels, spec.input, compute, DETECTOR_BATCH, shared=True)


def _make_batches(
    network: Detector,
    train: Manifest,
    val: Manifest,
    make_batch: Callable[[Tensor, int], Batch],
    augmentation: object,
    val_outputs: Callable[[], Tensor],
    spec: ModelSpec,
    weights: Tensor | None,
    upper: nn.Module | None = None,
) -> TrainingBatches:
    """`augmentation` is for the checkpoints' key; `upper` takes a batch's inputs, None: the network itself does.

    `weights` of the labels are those of the training boxes, in val_loss too.
    """
    val_targets = detector.encode_targets(val, spec.input)

    def validate() -> ValMetrics:
        return detector.compute_val_metrics(network, val_outputs(), val_targets, val, spec, weights)

    splits = [split.model_dump(mode="json", exclude={"images": {"__all__": {"id"}}}) for split in (train, val)]
    return TrainingBatches(
        upper or network,
        file_names=[image.file_name for image in train.images],
        checkpoint_key=[splits, augmentation],
        make_batch=make_batch,
        loss=lambda outputs, targets: detector.loss(network, outputs, targets, weights),
        validate=validate,
    )
