"""Inference in batches of one size: pixels or cached rows -> the network's outputs, fp32 on the CPU."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from headstart.base import distributed
from headstart.base.errors import UserError
from headstart.engine.cpu.optimize import optimize
from headstart.engine.device import Compute
from headstart.engine.equivalence import example_input
from headstart.engine.fold_batch_norm import fold_batch_norm
from headstart.engine.input_spec import ImageSize, InputSpec, Pixels
from headstart.engine.pixels import LazyPixels
from headstart.engine.streams import prefetch_on_device, send

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
    return send(torch.from_numpy(np.ascontiguousarray(pixels)), device).permute(0, 3, 1, 2).float().div(255)


def normalize_images(pictures: Tensor, input_spec: InputSpec) -> Tensor:
    """Floats in 0..1 (n, 3, h, w) -> (x - mean) / std per channel, channels_last."""
    mean, std = (_per_channel(values, pictures.device) for values in (input_spec.mean, input_spec.std))
    return ((pictures - mean) / std).contiguous(memory_format=torch.channels_last)


@functools.cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).reshape(1, 3, 1, 1)


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

    def make_inputs(start: int) -> Tensor:
        part = pixels[start : start + batch]
        padded = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), np.uint8)])
        return normalize_images(to_float_tensor(padded, compute.device), input_spec)

    return _run_batches(network, make_inputs, len(pixels), batch, compute, shared)


def run_inference_on_rows(
    network: nn.Module, rows: Sequence[Tensor], compute: Compute, batch: int = INFERENCE_BATCH, *, shared: bool = False
) -> Tensor:
    """`run_inference` for a network that takes rows (n, width), the cached activations of one picture each."""

    def make_inputs(start: int) -> Tensor:
        part = rows[start : start + batch]
        return send(torch.stack([*part, *[torch.zeros_like(part[0])] * (batch - len(part))]), compute.device)

    return _run_batches(network, make_inputs, len(rows), batch, compute, shared)


@torch.no_grad()
def _run_batches(
    network: nn.Module, make_inputs: Callable[[int], Tensor], count: int, batch: int, compute: Compute, shared: bool
) -> Tensor:
    """Outputs of `count` pictures; `make_inputs` makes the network's inputs, a whole batch of them, from a row on."""
    starts: Sequence[int] = range(0, count, batch)
    starts = starts[distributed.rank_slice(len(starts))] if shared else starts
    outputs: list[Tensor] = []
    waiting: list[Tensor] = []  # the last batch's outputs: a GPU has the next one to do while they are fetched
    for inputs in prefetch_on_device(make_inputs, starts, compute.device):
        with compute.autocast():
            waiting.append(network(inputs).float())
        outputs += [out.cpu() for out in waiting[:-1]]
        del waiting[:-1]
    outputs += [out.cpu() for out in waiting]
    outputs = [out[: count - start] for start, out in zip(starts, outputs, strict=True)]
    whole = torch.cat(distributed.all_gather_tensors(outputs) if shared else outputs)
    if compute.dtype == torch.float16 and not torch.isfinite(whole).all():
        raise UserError("params.yaml: train.precision: fp16: activations beyond 65,504, its largest number; give fp32")
    return whole
