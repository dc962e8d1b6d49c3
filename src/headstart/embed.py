"""What a frozen network says of a picture, run once and kept: a content-addressed cache under .cache/."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from headstart import freeze, kept, pixels, pool, ranks, rowcache
from headstart.batches import BATCH, outputs, row_outputs
from headstart.coco import Image
from headstart.compute import Compute, trial_pictures
from headstart.cut import Cut, cut
from headstart.errors import UserError
from headstart.fold import fold
from headstart.fuse import fuse
from headstart.kept import in_bytes
from headstart.pixels import Input
from headstart.progress import track

SHARD = 16  # batches in one file of the cache; what a kill can lose


@dataclass(frozen=True)
class Trunk:
    """A pretrained trunk, how it is computed, and where what it says is kept.

    `build` is called only when a picture is lacking: building costs seconds of imports.
    """

    build: Callable[[], nn.Module]
    sha256: str  # of its weights
    wanted: Input
    compute: Compute
    root: Path  # of the repository
    name: str = ""  # of the network: two may share names and shapes of weights, and compute something else
    most_gb: float = math.inf  # that `activations` may take, 10^9 bytes

    def folder(self, kind: str, *more: object) -> Path:
        """Where rows are kept: the key is everything they depend on, the picture aside."""
        code = [f"{name} {version(name)}" for name in ("pillow", "timm", "torch")]
        parts = (self.name, self.sha256, self.wanted.model_dump_json(), self.compute.name(), *code, *more)
        return self.root / f".cache/{kind}" / hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()[:32]

    def words(self) -> str:
        """What rows depend on: `resnet50 (weights 1a2b3c4d), 224 px squash, cpu bf16`."""
        return f"{self.name} (weights {self.sha256[:8]}), {self.wanted.words()}, {self.compute.name()}".lstrip()


def embeddings(images: Sequence[Image], trunk: Trunk, depth: int = 0) -> Tensor:
    """Features (n, features), fp32, of pictures in their order; only pictures the cache lacks are run.

    Args:
        images: pictures; the cache knows them by their sha256.
        trunk: the frozen trunk.
        depth: if not 0, fine-tuning wants `activations` at this depth, and the pictures pass through them.
    """
    folder = trunk.folder("embeddings")
    kept.use(folder, trunk.words())
    found = rowcache.read(folder)
    lacking = _lacking(images, found)
    if lacking and depth:
        parts = _parts(trunk, depth)
        below = activations(lacking, trunk, depth, parts)
        upper = trunk.compute.place(parts.upper)
        upper = fuse(upper, trunk.compute, torch.stack([below[image.sha256] for image in lacking[:2]]).float())
        features = row_outputs(upper, [below[image.sha256] for image in lacking], trunk.compute, shared=True)
        found |= rowcache.write(folder, [image.sha256 for image in lacking], features)
    elif lacking:
        found |= _run(lacking, trunk, folded(trunk)[0], folder, torch.float32)
    return torch.stack([found[image.sha256] for image in images])


def activations(images: Sequence[Image], trunk: Trunk, depth: int, parts: Cut | None = None) -> dict[str, Tensor]:
    """What the first `depth` blocks say of each picture, as `rows` gives it.

    `parts` is the trunk cut at `depth`, where the caller has it already.

    Raises:
        UserError: they take more than `trunk.most_gb`.
    """

    def lower() -> nn.Module:
        found = parts or _parts(trunk, depth)
        size = len({image.sha256 for image in images}) * found.width * trunk.compute.dtype.itemsize
        if size > trunk.most_gb * 1e9:
            raise UserError(
                f"params.yaml: fine_tune.cache_frozen: true: what {depth} frozen blocks say of {len(images):,} "
                f"pictures takes {in_bytes(size)}, and train.cache_gb is {trunk.most_gb:g}; give more there, a larger "
                "fine_tune.freeze_depth, or false"
            )
        return found.lower

    return rows(images, trunk, lower, f"blocks below {depth}")


def rows(
    images: Sequence[Image], trunk: Trunk, lower: Callable[[], nn.Module], what: str, batch: int = BATCH
) -> dict[str, Tensor]:
    """What a frozen part of the trunk says of each picture, by its sha256: a row each, in the machine's precision.

    The rows lie in memory-mapped files: only those that are looked at are read.

    Args:
        images: pictures.
        trunk: whose part it is.
        lower: the part, pictures (n, 3, s, s) -> rows (n, width); called only when a picture is lacking.
        what: which part, for the cache and for people.
        batch: pictures in one pass.
    """
    folder = trunk.folder("activations", what)
    kept.use(folder, f"{trunk.words()}, {what}")
    found = rowcache.read(folder)
    lacking = _lacking(images, found)
    if lacking:
        found |= _run(lacking, trunk, lower(), folder, trunk.compute.dtype, batch)
    return found


def folded(trunk: Trunk, depth: int = 0) -> tuple[nn.Module, set[str]]:
    """The trunk with its batch norms folded, nothing in it training, and the names of its first blocks' parameters.

    Batch norm by itself costs more than the convolutions (bf16, two cores: 25 pictures/s, folded 164).
    """
    built = trunk.build()
    blocks = freeze.blocks(built) if depth else []
    network, _ = fold(built, trunk.wanted.size)
    frozen = freeze.freeze(network, blocks, freeze.depth_of(blocks, depth))
    return network.requires_grad_(False), frozen


def _parts(trunk: Trunk, depth: int) -> Cut:
    network, frozen = folded(trunk, depth)
    return cut(network, frozen, trunk.wanted.size)


def _lacking(images: Sequence[Image], found: Mapping[str, Tensor]) -> list[Image]:
    """Pictures that are not there. Of several processes the first one's word counts: they do not look at one time."""
    return ranks.told(list({image.sha256: image for image in images if image.sha256 not in found}.values()))


def _run(
    images: Sequence[Image], trunk: Trunk, network: nn.Module, folder: Path, kind: torch.dtype, batch: int = BATCH
) -> dict[str, Tensor]:
    """Pictures through a network, kept as they come; each of several processes runs its share of them."""
    found: dict[str, Tensor] = {}
    network = fuse(trunk.compute.place(network), trunk.compute, trial_pictures(trunk.wanted.size))
    images = images[ranks.span(len(images))]
    shards = [images[start : start + batch * SHARD] for start in range(0, len(images), batch * SHARD)]
    for shard in track(shards, "embed pictures", len(shards)):
        decoded = pool.each(lambda image: pixels.decode(trunk.root / image.file_name, trunk.wanted), shard, "decode")
        rows = outputs(network, np.stack(decoded), trunk.wanted, trunk.compute, batch)
        found |= rowcache.write(folder, [image.sha256 for image in shard], rows.to(kind))
    if ranks.count() == 1:
        return found
    ranks.wait()
    return rowcache.read(folder)
