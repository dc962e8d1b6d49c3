"""Features of a frozen backbone, computed once a picture: a content-addressed cache under .cache/.

Embeddings are the backbone's pooled features, in fp32; activations are what its first blocks, or a part of it, put
out, in the precision of the forward pass.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from headstart.base import distributed
from headstart.base.cache_dir import format_size, mark_used
from headstart.base.code_digest import code_digest
from headstart.base.errors import UserError
from headstart.base.manifest import Image
from headstart.base.parallel import parallel_map
from headstart.base.progress import track
from headstart.engine.cpu.optimize import optimize
from headstart.engine.device import Compute
from headstart.engine.equivalence import example_input
from headstart.engine.fold_batch_norm import fold_batch_norm
from headstart.engine.inference import INFERENCE_BATCH, run_inference, run_inference_on_rows
from headstart.engine.input_spec import InputSpec
from headstart.engine.pixels import read_pixels
from headstart.features.row_cache import read_cached_rows, write_cached_rows
from headstart.features.split_network import SplitNetwork, split_network
from headstart.models.file import ModelSpec, hash_tensors
from headstart.models.freeze import freeze_blocks, list_blocks, resolve_freeze_depth

# What computes rows, from a picture's file to the cache: part of its key.
ROW_CODE = (
    "headstart.engine",
    "headstart.features",
    *(f"headstart.models.{name}" for name in ("backbone", "detector_parts", "freeze", "pretrained", "pyramid")),
    "headstart.models.torchvision_detectors",
)
BATCHES_PER_SHARD = 16  # batches in one file of the cache; what a kill can lose


@dataclass(frozen=True)
class FrozenBackbone:
    """A pretrained backbone, how it runs, and where its features are cached.

    Attributes:
        build: returns the network; called only when a picture is missing, since it costs seconds of imports.
        sha256: of its weights.
        input_spec: preprocessing.
        compute: device, precision, kernels.
        root: of the repository.
        name: of the network: two may share names and shapes of weights, and compute something else.
        max_gb: that activations may take, 10^9 bytes.
    """

    build: Callable[[], nn.Module]
    sha256: str
    input_spec: InputSpec
    compute: Compute
    root: Path
    name: str = ""
    max_gb: float = math.inf

    @classmethod
    def of(
        cls,
        build: Callable[[], nn.Module],
        tensors: Mapping[str, Tensor],
        spec: ModelSpec,
        compute: Compute,
        root: Path,
        max_gb: float = math.inf,
    ) -> "FrozenBackbone":
        """The backbone of a model: `tensors` are its weights, `spec` gives its name and preprocessing."""
        name = spec.backbone or spec.detector
        return cls(build, hash_tensors(tensors), spec.input, compute, root, name, max_gb)

    def cache_folder(self, kind: str, *more: object) -> Path:
        """Where rows are cached: the key is all that they depend on, the picture aside."""
        code = [*(f"{name} {version(name)}" for name in ("pillow", "timm", "torch")), code_digest(ROW_CODE)]
        parts = (self.name, self.sha256, self.input_spec.model_dump_json(), self.compute.description(), *code, *more)
        return self.root / f".cache/{kind}" / hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()[:32]

    def description(self) -> str:
        """What rows depend on: `resnet50 (weights 1a2b3c4d), 224 px squash, cpu bf16`."""
        compute = self.compute.description()
        return f"{self.name} (weights {self.sha256[:8]}), {self.input_spec.description()}, {compute}".lstrip()


def compute_embeddings(images: Sequence[Image], backbone: FrozenBackbone, depth: int = 0) -> Tensor:
    """Features (n, features), fp32, of pictures in their order; only pictures missing from the cache are run.

    They are the same bits whatever `depth` is.

    Args:
        images: pictures; the cache identifies them by their sha256.
        backbone: whose features.
        depth: if not 0, fine-tuning needs the activations of so many blocks: they are cached on the way.
    """
    folder = backbone.cache_folder("embeddings")
    mark_used(folder, backbone.description())
    rows = read_cached_rows(folder, _names(images))
    missing = _missing_images(images, rows)
    if missing and depth:
        features = _features_from_activations(missing, backbone, depth)
        if features is not None:
            rows |= write_cached_rows(folder, [image.sha256 for image in missing], features)
            missing = []
    if missing:
        rows |= _run_and_cache(missing, backbone, build_folded_backbone(backbone)[0], folder, torch.float32)
    return torch.stack([rows[image.sha256] for image in images])


def _features_from_activations(images: Sequence[Image], backbone: FrozenBackbone, depth: int) -> Tensor | None:
    """Features from activations, which are cached; None where that gives other bits than the whole backbone does.

    Activations are cached in the precision of the forward pass. Some networks keep them in fp32 inside a bf16 pass, and
    features must not depend on what is cached; one batch of these pictures shows it.
    """
    compute, size = backbone.compute, backbone.input_spec.size
    parts = _split_backbone(backbone, depth)
    activations = compute_activations(images, backbone, depth, parts)
    inputs = [activations[image.sha256] for image in images]
    upper = optimize(compute.to_device(parts.upper), compute, torch.stack(inputs[:2]).float(), training=False)
    features = run_inference_on_rows(upper, inputs, compute, shared=True)
    batch = images[:INFERENCE_BATCH]
    pixels = np.stack([read_pixels(backbone.root / image.file_name, backbone.input_spec) for image in batch])

    def run(network: nn.Module) -> Tensor:
        optimized = optimize(compute.to_device(network), compute, example_input(size), training=False)
        return run_inference(optimized, pixels, backbone.input_spec, compute)

    exact = torch.equal(run(parts.lower), torch.stack(inputs[: len(batch)]).float())
    same = exact and torch.equal(run(build_folded_backbone(backbone)[0]), features[: len(batch)])
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

    return compute_activation_rows(images, backbone, build_lower, f"blocks below {depth}")


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
        build_lower: returns the part, pictures (n, 3, s, s) -> rows (n, width); called only if a picture is missing.
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
    return split_network(network, frozen, backbone.input_spec.size)


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
    network = optimize(compute.to_device(network), compute, example_input(input_spec.size), training=False)
    names, images = _names(images), images[distributed.rank_slice(len(images))]
    per_shard = batch * BATCHES_PER_SHARD
    shards = [images[start : start + per_shard] for start in range(0, len(images), per_shard)]
    rows: dict[str, Tensor] = {}
    for shard in track(shards, "embed pictures", len(shards)):
        pixels = parallel_map(lambda image: read_pixels(backbone.root / image.file_name, input_spec), shard, "decode")
        outputs = run_inference(network, np.stack(pixels), input_spec, compute, batch)
        rows |= write_cached_rows(folder, [image.sha256 for image in shard], outputs.to(dtype))
    if distributed.get_world_size() == 1:
        return rows
    distributed.wait_for_all()
    return read_cached_rows(folder, names)
