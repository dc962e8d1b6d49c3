"""Inference in batches of one size: pixels or cached rows -> the network's outputs, fp32 on the CPU."""

from collections.abc import Callable, Iterable, Sequence, Sized
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from headstart.base import distributed
from headstart.base.parallel import prefetch
from headstart.engine.cpu.optimize import optimize
from headstart.engine.device import Compute
from headstart.engine.equivalence import example_input
from headstart.engine.fold_batch_norm import fold_batch_norm
from headstart.engine.input_spec import ImageSize, InputSpec, Pixels
from headstart.engine.pixels import LazyPixels

PartT = TypeVar("PartT", bound=Sized)

# Every forward pass without gradients has this many pictures, the last one padded with zeros: kernels round
# differently for another batch size, and a picture's outputs must not depend on how many others there are.
INFERENCE_BATCH = 32
DETECTOR_BATCH = 8  # of a detector, whose feature maps are large


def prepare_for_inference(network: nn.Module, input_size: ImageSize, compute: Compute, batch: int) -> nn.Module:
    """The network for many forward passes: batch norm of its `trunk` folded, on the device, fused on a CPU.

    Args:
        network: in eval mode; its `trunk` is replaced by the folded one, and it is moved to the device.
        input_size: side of the input, or height and width, in pixels.
        compute: device, precision, kernels.
        batch: pictures in a forward pass; the fused copy is checked by an example of that many.

    Returns:
        the network itself, or on a CPU a copy with fused convolutions.
    """
    network.trunk, _ = fold_batch_norm(network.get_submodule("trunk"), input_size)
    return optimize(compute.to_device(network), compute, example_input(input_size, batch), training=False)


def to_float_tensor(pixels: Pixels, device: torch.device) -> Tensor:
    """Pixels (n, h, w, 3) -> floats in 0..1 (n, 3, h, w), channels_last, on the device."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2).float().div(255)


def normalize_images(pictures: Tensor, input_spec: InputSpec) -> Tensor:
    """Floats in 0..1 (n, 3, h, w) -> (x - mean) / std per channel, channels_last."""
    mean = torch.tensor(input_spec.mean, device=pictures.device).reshape(1, 3, 1, 1)
    std = torch.tensor(input_spec.std, device=pictures.device).reshape(1, 3, 1, 1)
    return ((pictures - mean) / std).contiguous(memory_format=torch.channels_last)


def run_inference(
    network: nn.Module,
    pixels: Pixels | LazyPixels,
    input_spec: InputSpec,
    compute: Compute,
    batch: int = INFERENCE_BATCH,
    *,
    shared: bool = False,
) -> Tensor:
    """The network's outputs (n, ...), in fp32 on the CPU, for pixels (n, h, w, 3).

    Args:
        network: takes normalized pictures; in eval mode, on the device.
        pixels: uint8, RGB.
        input_spec: mean and std.
        compute: device and precision.
        batch: pictures in one forward pass.
        shared: all processes call this with the same pixels; each runs a part of the batches, all return all outputs.
    """

    def pad(part: Pixels) -> Tensor:
        padded = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), np.uint8)])
        return normalize_images(to_float_tensor(padded, compute.device), input_spec)

    parts = prefetch(lambda start: pixels[start : start + batch], _batch_starts(len(pixels), batch, shared))
    return _run_batches(network, parts, pad, compute, shared)


def run_inference_on_rows(
    network: nn.Module, rows: Sequence[Tensor], compute: Compute, batch: int = INFERENCE_BATCH, *, shared: bool = False
) -> Tensor:
    """`run_inference` for a network that takes rows (n, width), the cached activations of one picture each."""

    def pad(part: Sequence[Tensor]) -> Tensor:
        return torch.stack([*part, *[torch.zeros_like(part[0])] * (batch - len(part))]).to(compute.device)

    parts = (rows[start : start + batch] for start in _batch_starts(len(rows), batch, shared))
    return _run_batches(network, parts, pad, compute, shared)


def _batch_starts(count: int, batch: int, shared: bool) -> Sequence[int]:
    starts = range(0, count, batch)
    return starts[distributed.rank_slice(len(starts))] if shared else starts


@torch.no_grad()
def _run_batches(
    network: nn.Module, parts: Iterable[PartT], pad: Callable[[PartT], Tensor], compute: Compute, shared: bool
) -> Tensor:
    """Outputs of all parts; `pad` makes the network's inputs, a whole batch of them, of a part."""
    outputs: list[Tensor] = []
    for part in parts:
        inputs = pad(part)
        with compute.autocast():
            out: Tensor = network(inputs)
        outputs.append(out.float().cpu()[: len(part)])
    return torch.cat(distributed.all_gather_tensors(outputs) if shared else outputs)
