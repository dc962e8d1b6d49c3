"""How this machine computes: device, precision, memory, and the settings that give the same bits twice."""

import ctypes
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from headstart.errors import UserError
from headstart.params import TrainParams

Network = TypeVar("Network", bound=nn.Module)

# glibc's mallopt() parameters (malloc.h).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


@dataclass(frozen=True)
class Compute:
    """Where and in which precision the network runs."""

    device: torch.device
    bf16: bool

    @property
    def dtype(self) -> torch.dtype:
        """Of convolutions and matrix products, and of what is kept of them."""
        return torch.bfloat16 if self.bf16 else torch.float32

    def autocast(self) -> AbstractContextManager[None]:
        """A context in which convolutions and matrix products run in the chosen precision."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def place(self, network: Network) -> Network:
        """Move the network to the device, its convolutions in the memory layout that is fast there."""
        network.to(self.device)
        network.to(memory_format=torch.channels_last)
        return network

    def name(self) -> str:
        """For logs and cache keys: `cpu bf16`."""
        return f"{self.device.type} {'bf16' if self.bf16 else 'fp32'}"


def trial_pictures(size: int, count: int = 2) -> Tensor:
    """Noise (count, 3, size, size), always the same: a rebuilt network proves by it to give what the old one gave."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def prepare(params: TrainParams, seed: int) -> Compute:
    """Choose device and precision, seed torch, and turn nondeterministic algorithms off.

    Raises:
        UserError: bf16 is asked for and this machine has none.
    """
    keep_memory()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts; deterministic matrix products
    torch.manual_seed(seed)
    torch.set_deterministic_debug_mode("error")  # as use_deterministic_algorithms, which imports 3 s of compiler
    torch.backends.cudnn.benchmark = False
    # We read no uninitialised memory, and filling it would cost a pass over each block.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # With its number: which one is the current one, each thread says for itself.
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    can = _has_bf16(device)
    if params.precision == "bf16" and not can:
        raise UserError("params.yaml: train.precision: 'bf16': this machine does not compute in bf16; use auto or fp32")
    return Compute(device, bf16=can and params.precision != "fp32")


def _has_bf16(device: torch.device) -> bool:
    """Whether matrices of bf16 are multiplied in hardware; emulation would be slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    except AttributeError:  # a build for another kind of processor
        return False


def keep_memory() -> bool:
    """Tell glibc to keep freed blocks: by default it faults every large activation in anew at each layer.

    Returns whether it took effect (Linux with glibc only).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    wanted = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 64 << 20))
    return all(mallopt(option, value) for option, value in wanted)
