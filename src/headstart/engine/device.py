"""Device, precision, and torch's settings: deterministic algorithms, a fixed seed."""

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from headstart.base.errors import UserError
from headstart.base.memory import keep_freed_memory
from headstart.params.training import TrainParams

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True)
class Compute:
    """Where and how networks run.

    Attributes:
        device: of parameters and activations.
        bf16: convolutions and matrix products in bfloat16; False: in fp32.
        cpu_kernels: on a CPU, this package's kernels (`engine.cpu.optimize`) instead of torch's own.
    """

    device: torch.device
    bf16: bool
    cpu_kernels: bool = True

    @property
    def dtype(self) -> torch.dtype:
        """Of convolutions and matrix products, and of activations in the cache."""
        return torch.bfloat16 if self.bf16 else torch.float32

    def autocast(self) -> AbstractContextManager[None]:
        """A context in which convolutions and matrix products run in the chosen precision."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def to_device(self, network: ModuleT) -> ModuleT:
        """Move the network to the device in channels_last, the memory format in which convolutions are fast."""
        network.to(self.device)
        network.to(memory_format=torch.channels_last)
        return network

    def description(self) -> str:
        """For logs and cache keys: `cpu bf16`, or `cpu bf16 plain` without this package's CPU kernels."""
        plain = " plain" if self.device.type == "cpu" and not self.cpu_kernels else ""
        return f"{self.device.type} {'bf16' if self.bf16 else 'fp32'}{plain}"


def configure_torch(params: TrainParams, seed: int) -> Compute:
    """Choose device and precision, seed torch, and turn nondeterministic algorithms off.

    Raises:
        UserError: `train.precision: bf16` on a machine without it.
    """
    keep_freed_memory()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts; deterministic matrix products
    torch.manual_seed(seed)
    torch.set_deterministic_debug_mode("error")  # as use_deterministic_algorithms, which imports 3 s of compiler
    torch.backends.cudnn.benchmark = False
    # Nothing here reads uninitialized memory, and filling it would cost a pass over each block.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    device = chosen_device()
    bf16_supported = computes_bf16(device)
    if params.precision == "bf16" and not bf16_supported:
        raise UserError("params.yaml: train.precision: 'bf16': this machine does not compute in bf16; use auto or fp32")
    return Compute(device, bf16=bf16_supported and params.precision != "fp32", cpu_kernels=params.cpu_kernels)


def chosen_device() -> torch.device:
    """The GPU that torch sees, else the CPU."""
    # With its index: the current device is a thread's own, and batches are made in threads.
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def computes_bf16(device: torch.device) -> bool:
    """Whether bf16 matrices are multiplied in hardware; emulation would be slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    except AttributeError:  # a build for another kind of processor
        return False
