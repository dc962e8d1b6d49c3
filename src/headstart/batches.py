"""Pixels -> what the network sees and says, in whole batches on the training device."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from headstart import pool, ranks
from headstart.compute import Compute
from headstart.pixels import Files, Input, Pixels

# Every pass without gradients has this many pictures, the last one padded: what the network says of a picture
# must not depend on its company.
BATCH = 32
VAL_BATCH = 8  # of a detector, whose maps are large


def floats(pixels: Pixels, device: torch.device) -> Tensor:
    """Pixels (n, s, s, 3) -> floats in 0..1 (n, 3, s, s), channels_last, on the device."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2).float().div(255)


def normalise(pictures: Tensor, wanted: Input) -> Tensor:
    """Floats in 0..1 -> what the pretrained network has seen: (x - mean) / std, channels_last."""
    mean = torch.tensor(wanted.mean, device=pictures.device).reshape(1, 3, 1, 1)
    std = torch.tensor(wanted.std, device=pictures.device).reshape(1, 3, 1, 1)
    return ((pictures - mean) / std).contiguous(memory_format=torch.channels_last)


def outputs(
    network: nn.Module,
    pixels: Pixels | Files,
    wanted: Input,
    compute: Compute,
    batch: int = BATCH,
    *,
    shared: bool = False,
) -> Tensor:
    """What the network gives, (n, ...) in fp32 on the CPU, for pixels (n, s, s, 3).

    `shared`: all processes are here with the same pixels, and each runs some of the batches.
    """
    out, starts = [], range(0, len(pixels), batch)
    mine = starts[ranks.span(len(starts))] if shared else starts
    for some in pool.ahead(lambda start: pixels[start : start + batch], mine):
        padded = np.concatenate([some, np.zeros((batch - len(some), *some.shape[1:]), np.uint8)])
        out.append(_run(network, normalise(floats(padded, compute.device), wanted), compute)[: len(some)])
    return torch.cat(ranks.gather(out) if shared else out)


def row_outputs(
    network: nn.Module, rows: Sequence[Tensor], compute: Compute, batch: int = BATCH, *, shared: bool = False
) -> Tensor:
    """`outputs` for a network that takes rows, the activations of one picture each."""
    out, starts = [], range(0, len(rows), batch)
    for start in starts[ranks.span(len(starts))] if shared else starts:
        some = rows[start : start + batch]
        padded = torch.stack([*some, *[torch.zeros_like(some[0])] * (batch - len(some))])
        out.append(_run(network, padded.to(compute.device), compute)[: len(some)])
    return torch.cat(ranks.gather(out) if shared else out)


@torch.no_grad()
def _run(network: nn.Module, inputs: Tensor, compute: Compute) -> Tensor:
    with compute.autocast():
        found: Tensor = network(inputs)
    return found.float().cpu()
