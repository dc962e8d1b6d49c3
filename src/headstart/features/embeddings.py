"""Features of a frozen backbone, computed once a picture: a content-addressed cache under .cache/.

Embeddings are the backbone's pooled features, in fp32; activations are what its first blocks, or a part of it, put
out, in the precision of the forward pass.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from headstart.base import distributed
from headstart.base.cache_dir import format_size, mark_used
from headstart.base.errors import UserError
from headstart.base.manifest import Image
from headstart.base.parallel import parallel_map
from headstart.base.progress import track
from headstart.engine.cpu.optimize import optimize
from headstart.engine.equivalence import example_input
from headstart.engine.fold_batch_norm import fold_batch_norm
from headstart.engine.inference import INFERENCE_BATCH, run_inference, run_inference_on_rows
from headstart.engine.input_spec import Pixels
from headstart.engine.pixels import read_pixels
from headstart.features.frozen_backbone import FrozenBackbone
from headstart.features.row_cache import read_cached_rows, write_cached_rows
from headstart.features.split_network import SplitNetwork, split_features
from headstart.models.block_features import BlockFeatures
from headstart.models.freeze import freeze_blocks, list_blocks, resolve_freeze_depth

BATCHES_PER_SHARD = 16  # batches in one file of the cache; what a kill can lose


def compute_embeddings(
    images: Sequence[Image],
    backbone: FrozenBackbone,
    depth: int = 0,
    features: Literal["last", "blocks"] = "last",
    *,
    last_too: bool = True,
) -> Tensor:
    """Features (n, features), fp32, of pictures in their order; only pictures missing from the cache are run.

    They are the same bits whatever `depth` is.

    Args:
        images: pictures; the cache identifies them by their sha256.
        backbone: whose features.
        depth: if not 0, fine-tuning needs the activations of so many blocks: they are cached on the way.
        features: last: the pooled ones alone; blocks: then those of `backbone.levels`.
        last_too: of `blocks`, cache the pooled ones for `last` as well, at the price of one batch.
    """
    if features == "last":
        backbone = replace(backbone, levels=())
    folder = _embeddings_folder(backbone)
    mark_used(folder, f"{backbone.description()}{', with features of blocks' if backbone.levels else ''}")
    rows = read_cached_rows(folder, _names(images))
    missing = to_run = _missing_images(images, rows)
    if missing and depth:
        found = _features_from_activations(missing, backbone, depth)
        if found is not None:
            rows |= write_cached_rows(folder, [image.sha256 for image in missing], found)
            to_run = []
    if to_run:
        rows |= _run_and_cache(to_run, backbone, _whole_network(backbone), folder, torch.float32)
    if missing and backbone.levels and last_too:
        _cache_last_too(missing, backbone, rows)
    return torch.stack([rows[image.sha256] for image in images])


def _embeddings_folder(backbone: FrozenBackbone) -> Path:
    return backbone.cache_folder("embeddings", *(["blocks", backbone.levels] if backbone.levels else []))


def _whole_network(backbone: FrozenBackbone) -> nn.Module:
    """Pictures -> features, batch norm folded."""
    network, _ = build_folded_backbone(backbone)
    return BlockFeatures(network, backbone.levels) if backbone.levels else network


def _cache_last_too(images: Sequence[Image], backbone: FrozenBackbone, rows: Mapping[str, Tensor]) -> None:
    """Cache the pooled features, which rows with those of blocks begin with, for `features: last`.

    One batch of these pictures shows whether they are the bits that the backbone alone gives.
    """
    network, batch = build_folded_backbone(backbone)[0], images[:INFERENCE_BATCH]
    last = _run_on_files(network, batch, backbone)
    width = last.shape[1]
    folder = _embeddings_folder(replace(backbone, levels=()))
    cached = read_cached_rows(folder, _names(images))
    missing = _missing_images(images, cached)
    if missing and torch.equal(last, torch.stack([rows[image.sha256][:width] for image in batch])):
        features = torch.stack([rows[image.sha256][:width] for image in missing])
        mark_used(folder, replace(backbone, levels=()).description())
        write_cached_rows(folder, [image.sha256 for image in missing], features)


def _run_on_files(network: nn.Module, images: Sequence[Image], backbone: FrozenBackbone) -> Tensor:
    """Outputs for a batch of pictures, as `_run_and_cache` computes them."""
    pixels = [read_pixels(backbone.root / image.file_name, backbone.input_spec, image.tile) for image in images]
    return run_inference(_optimize(network, backbone), np.stack(pixels), backbone.input_spec, backbone.compute)


def _optimize(network: nn.Module, backbone: FrozenBackbone) -> nn.Module:
    compute = backbone.compute
    return optimize(compute.to_device(network), compute, example_input(backbone.input_spec.size), training=False)


def compute_features(shards: Iterable[Pixels], backbone: FrozenBackbone) -> Tensor:
    """Features (n, features), fp32, of pictures that are no files, those of blocks among them; not cached.

    Args:
        shards: pixels (m, h, w, 3) of some pictures at a time; at least one.
        backbone: whose features.
    """
    network = _optimize(_whole_network(backbone), backbone)
    return torch.cat([run_inference(network, pixels, backbone.input_spec, backbone.compute) for pixels in shards])


def _features_from_activations(images: Sequence[Image], backbone: FrozenBackbone, depth: int) -> Tensor | None:
    """Features from activations, which are cached; None where that gives other bits than the whole backbone does.

    Activations are cached in the precision of the forward pass. Some networks keep them in fp32 inside a bf16 pass, and
    features must not depend on what is cached; one batch of these pictures shows it.
    """
    compute = backbone.compute
    parts = _split_backbone(backbone, depth)
    activations = compute_activations(images, backbone, depth, parts)
    inputs = [activations[image.sha256] for image in images]
    upper = optimize(compute.to_device(parts.upper), compute, torch.stack(inputs[:2]).float(), training=False)
    features = run_inference_on_rows(upper, inputs, compute, shared=True)
    batch = images[:INFERENCE_BATCH]
    lower = _run_on_files(parts.lower, batch, backbone)
    exact = torch.equal(lower, torch.stack(inputs[: len(batch)]).float())
    same = exact and torch.equal(_run_on_files(_whole_network(backbone), batch, backbone), features[: len(batch)])
    return features if distributed.broadcast_object(same) else None


def compute_activations(
    images: Sequence[Image], backbone: FrozenBackbone, depth: int, parts: SplitNetwork | None = None
) -> dict[str, Tensor]:
    """Activations of the first `depth` blocks for each picture, as `compute_activation_rows` returns them.

    Args:
        images: pictures.
        backbone: whose blocks.
        depth: how many blocks, -1: all.
        parts: the backbone split at `depth`, where the caller has it already.

    Raises:
        UserError: they take more than `backbone.max_gb`.
    """

    def build_lower() -> nn.Module:
        split = parts or _split_backbone(backbone, depth)
        size = len({image.sha256 for image in images}) * split.width * backbone.compute.dtype.itemsize
        if size > backbone.max_gb * 1e9:
            raise UserError(
                f"params.yaml: fine_tune.cache_frozen: true: the activations of {depth} frozen blocks for "
                f"{len(images):,} pictures take {format_size(size)}, and train.cache_gb is {backbone.max_gb:g}; "
                "give more there, a larger fine_tune.freeze_depth, or false"
            )
        return split.lower

    part = f"blocks below {depth}{f' with features of {backbone.levels}' if backbone.levels else ''}"
    return compute_activation_rows(images, backbone, build_lower, part)


def compute_activation_rows(
    images: Sequence[Image],
    backbone: FrozenBackbone,
    build_lower: Callable[[], nn.Module],
    part: str,
    batch: int = INFERENCE_BATCH,
) -> dict[str, Tensor]:
    """Activations of a frozen part of the backbone by a picture's sha256: a row each, in `compute.dtype`.

    The rows lie in memory-mapped files: only those that are used are read.

    Args:
        images: pictures.
        backbone: whose part it is.
        build_lower: returns the part, pictures (n, 3, h, w) -> rows (n, width); called only if a picture is missing.
        part: which part, in words, for the cache key and for `headstart cache`.
        batch: pictures in one forward pass.
    """
    folder = backbone.cache_folder("activations", part)
    mark_used(folder, f"{backbone.description()}, {part}")
    rows = read_cached_rows(folder, _names(images))
    if missing := _missing_images(images, rows):
        rows |= _run_and_cache(missing, backbone, build_lower(), folder, backbone.compute.dtype, batch)
    return rows


def build_folded_backbone(backbone: FrozenBackbone, depth: int = 0) -> tuple[nn.Module, set[str]]:
    """The network with its batch norms folded, nothing in it training, and the names of its first blocks' parameters.

    Batch norm by itself costs more than the convolutions (bf16, two cores: 25 pictures/s, folded 164).
    """
    original = backbone.build()
    blocks = list_blocks(original) if depth else []
    network, _ = fold_batch_norm(original, backbone.input_spec.size)
    frozen = freeze_blocks(network, blocks, resolve_freeze_depth(blocks, depth))
    return network.requires_grad_(False), frozen


def _split_backbone(backbone: FrozenBackbone, depth: int) -> SplitNetwork:
    network, frozen = build_folded_backbone(backbone, depth)
    return split_features(network, backbone.levels, frozen, backbone.input_spec.size)


def _names(images: Sequence[Image]) -> set[str]:
    return {image.sha256 for image in images}


def _missing_images(images: Sequence[Image], rows: Mapping[str, Tensor]) -> list[Image]:
    """Pictures without a row, once each. The main process decides: others may see files that were added meanwhile."""
    return distributed.broadcast_object(
        list({image.sha256: image for image in images if image.sha256 not in rows}.values())
    )


def _run_and_cache(
    images: Sequence[Image],
    backbone: FrozenBackbone,
    network: nn.Module,
    folder: Path,
    dtype: torch.dtype,
    batch: int = INFERENCE_BATCH,
) -> dict[str, Tensor]:
    """Run pictures through a network and cache their rows shard by shard; each process runs its part of them."""
    input_spec, compute = backbone.input_spec, backbone.compute
    network = _optimize(network, backbone)
    names, images = _names(images), images[distributed.rank_slice(len(images))]
    per_shard = batch * BATCHES_PER_SHARD
    shards = [images[start : start + per_shard] for start in range(0, len(images), per_shard)]
    rows: dict[str, Tensor] = {}
    for shard in track(shards, "embed pictures", len(shards)):
        pixels = parallel_map(
            lambda image: read_pixels(backbone.root / image.file_name, input_spec, image.tile), shard, "decode"
        )
        outputs = run_inference(network, np.stack(pixels), input_spec, compute, batch)
        rows |= write_cached_rows(folder, [image.sha256 for image in shard], outputs.to(dtype))
    if distributed.get_world_size() == 1:
        return rows
    distributed.wait_for_all()
    return read_cached_rows(folder, names)
