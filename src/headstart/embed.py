"""The frozen trunk, run once a picture: pooled features in a content-addressed cache."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from headstart import pixels, pool
from headstart.batches import BATCH, outputs
from headstart.coco import Image
from headstart.compute import Compute
from headstart.fold import fold
from headstart.pixels import Input
from headstart.progress import track

SHARD = 16  # batches in one file of the cache; what a kill can lose


def embeddings(
    images: Sequence[Image],
    root: Path,
    *,
    trunk: Callable[[], nn.Module],
    weights_sha256: str,
    wanted: Input,
    compute: Compute,
) -> Tensor:
    """Features (n, features), fp32, of pictures in their order; only pictures the cache lacks are run.

    Args:
        images: pictures; the cache knows them by their sha256.
        root: the repository root; the cache is `.cache/embeddings/<key>` in it.
        trunk: builds the frozen trunk. Called only when a picture is lacking: building it costs seconds of imports.
        weights_sha256: of the trunk's weights, part of the cache's key.
        wanted: preprocessing, part of the key.
        compute: device and precision, part of the key.
    """
    description = f"{weights_sha256} {wanted.model_dump_json()} {compute.name()} {torch.__version__}"
    folder = root / ".cache/embeddings" / hashlib.sha256(description.encode()).hexdigest()[:32]
    found = _read(folder)
    lacking = list({image.sha256: image for image in images if image.sha256 not in found}.values())
    if lacking:
        # Folded: batch norm by itself costs more than the convolutions (bf16, two cores: 25 pictures/s, folded 164).
        network = compute.place(fold(trunk(), wanted.size)[0].requires_grad_(False))
        shards = [lacking[start : start + BATCH * SHARD] for start in range(0, len(lacking), BATCH * SHARD)]
        for shard in track(shards, "embed pictures", len(shards)):
            decoded = pool.each(lambda image: pixels.decode(root / image.file_name, wanted), shard, "decode")
            features = outputs(network, np.stack(decoded), wanted, compute)
            found.update(zip((image.sha256 for image in shard), features, strict=True))
            _write(folder, [image.sha256 for image in shard], features)
    return torch.stack([found[image.sha256] for image in images])


def _read(folder: Path) -> dict[str, Tensor]:
    """Everything in the cache. A file that cannot be read is removed, and its pictures are run again."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            tensors = load_file(path)
            names = bytes(tensors["names"].tolist()).decode().split()
            found.update(zip(names, tensors["features"], strict=True))
        except (SafetensorError, KeyError, ValueError):
            path.unlink(missing_ok=True)
    return found


def _write(folder: Path, names: list[str], features: Tensor) -> None:
    """Add one file. Two processes that embed the same pictures write the same file: either one may win."""
    folder.mkdir(parents=True, exist_ok=True)
    joined = " ".join(names).encode()
    path = folder / f"{hashlib.sha256(joined).hexdigest()[:32]}.safetensors"
    part = path.with_suffix(f".{os.getpid()}.part")
    save_file({"names": torch.frombuffer(bytearray(joined), dtype=torch.uint8), "features": features}, part)
    part.replace(path)
