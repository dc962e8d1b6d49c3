"""A network's outputs for whole splits, in fp32 as the exported model computes."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from headstart.base.manifest import Manifest
from headstart.engine.device import configure_torch
from headstart.engine.inference import INFERENCE_BATCH, prepare_for_inference, run_inference
from headstart.engine.input_spec import Pixels
from headstart.engine.pixels import LazyPixels, load_pixels
from headstart.models.file import ModelSpec
from headstart.params.root import Params


def fp32_outputs(
    network: nn.Module, spec: ModelSpec, params: Params, root: Path, batch: int = INFERENCE_BATCH
) -> Callable[[Manifest], Tensor]:
    """Prepare a network for inference.

    In fp32 whatever `train.precision` is, because that is what the export stage ships: the metrics are then those of
    the exported model.

    Args:
        network: of a model file, in eval mode; the batch norms of its backbone are folded in place.
        spec: of the network.
        params: all of params.yaml.
        root: the repository root, to which the manifests' file names are relative.
        batch: pictures in one forward pass.

    Returns:
        a function: manifest -> outputs (n, ...) of its pictures, on the CPU.
    """
    outputs = fp32_pixel_outputs(network, spec, params, batch)
    return lambda manifest: outputs(load_pixels(manifest.images, root, spec.input, "decode"))


def fp32_pixel_outputs(
    network: nn.Module, spec: ModelSpec, params: Params, batch: int = INFERENCE_BATCH
) -> Callable[[Pixels | LazyPixels], Tensor]:
    """The same for pixels (n, h, w, 3) instead of a manifest."""
    compute = configure_torch(params.train.in_fp32(), params.seed)
    prepared = prepare_for_inference(network, spec.input.size, compute, batch)
    return lambda pixels: run_inference(prepared, pixels, spec.input, compute, batch)
