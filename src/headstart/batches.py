"""Pixels -> what the network sees and says, in whole batches on the training device."""

import numpy as np
import torch
from torch import Tensor, nn

from headstart.compute import Compute
from headstart.pixels import Input, Pixels

# Every pass without gradients has this many pictures, the last one padded: what the network says of a picture
# must not depend on its company.
BATCH = 32


def floats(pixels: Pixels, device: torch.device) -> Tensor:
    """Pixels (n, s, s, 3) -> floats in 0..1 (n, 3, s, s), channels_last, on the device."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2).float().div(255)


def normalise(pictures: Tensor, wanted: Input) -> Tensor:
    """Floats in 0..1 -> what the pretrained network has seen: (x - mean) / std, channels_last."""
    mean = torch.tensor(wanted.mean, device=pictures.device).reshape(1, 3, 1, 1)
    std = torch.tensor(wanted.std, device=pictures.device).reshape(1, 3, 1, 1)
    return ((pictures - mean) / std).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def outputs(network: nn.Module, pixels: Pixels, wanted: Input, compute: Compute) -> Tensor:
    """What the network gives, (n, ...) in fp32 on the CPU, for pixels (n, s, s, 3)."""
    out = []
    for start in range(0, len(pixels), BATCH):
        some = pixels[start : start + BATCH]
        padded = np.concatenate([some, np.zeros((BATCH - len(some), *some.shape[1:]), np.uint8)])
        with compute.autocast():
            found = network(normalise(floats(padded, compute.device), wanted))
        out.append(found[: len(some)].float().cpu())
    return torch.cat(out)
