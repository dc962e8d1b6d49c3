"""Device, precision, and torch's settings: deterministic algorithms, a fixed seed, fp32 that is fp32."""

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from headstart.base.errors import UserError
from headstart.base.memory import keep_freed_memory
from headstart.params.training import TrainParams

ModuleT = TypeVar("ModuleT", bound=nn.Module)
PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass(frozen=True)
class Compute:
    """Where and how networks run.

    Attributes:
        device: of parameters and activations.
        dtype: of convolutions and matrix products, and of activations in the cache: float32, bfloat16 or float16.
        cpu_kernels: on a CPU, this package's kernels (`engine.cpu.optimize`) instead of torch's own.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    cpu_kernels: bool = True

    def autocast(self) -> AbstractContextManager[None]:
        """A context in which convolutions and matrix products run in the chosen precision."""
        low = self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype if low else None, enabled=low)

    def to_device(self, network: ModuleT) -> ModuleT:
        """Move the network to the device in channels_last, the memory format in which convolutions are fast."""
        network.to(self.device)
        network.to(memory_format=torch.channels_last)
        return network

    def description(self) -> str:
        """For logs and cache keys: `NVIDIA T4 fp32`, `cpu bf16`, `cpu bf16 plain` without this package's kernels."""
        plain = " plain" if self.device.type == "cpu" and not self.cpu_kernels else ""
        return f"{device_name(self.device)} {PRECISIONS[self.dtype]}{plain}"


def configure_torch(params: TrainParams, seed: int) -> Compute:
    """Choose device and precision, seed torch, and turn nondeterministic algorithms off.

    Raises:
        UserError: a `train.precision` that the machine does not have.
    """
    keep_freed_memory()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts; deterministic matrix products
    torch.manual_seed(seed)
    # As use_deterministic_algorithms, which imports 3 s of compiler.
    torch.set_deterministic_debug_mode("error" if params.deterministic else "default")
    torch.backends.cudnn.benchmark = False
    # TF32, which is on for convolutions unless told otherwise, has products of ten bits.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    # Nothing here reads uninitialized memory, and filling it would cost a pass over each block.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    device = chosen_device()
    return Compute(device, choose_dtype(params.precision, device), params.cpu_kernels)


def chosen_device() -> torch.device:
    """The GPU that torch sees, else the CPU.

    Raises:
        UserError: this build of torch has no code for that GPU.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # With its index: the current device is a thread's own, and batches are made in threads.
    device = torch.device("cuda", torch.cuda.current_device())
    own, least = torch.cuda.get_device_capability(device), _least_capability(torch.cuda.get_arch_list())
    if own < least:
        raise UserError(
            f"{torch.cuda.get_device_name(device)}: its compute capability is {own[0]}.{own[1]}, torch "
            f"{torch.__version__} begins with {least[0]}.{least[1]}; install a build of torch for it, or hide the GPU: "
            "CUDA_VISIBLE_DEVICES=''"
        )
    return device


def _least_capability(architectures: list[str]) -> tuple[int, int]:
    """The oldest of sm_75, sm_90 ..., as (7, 5); (0, 0) of none."""
    numbers = [int(match[1]) for name in architectures if (match := re.match(r"sm_(\d+)", name))]
    return divmod(min(numbers, default=0), 10)


def device_name(device: torch.device) -> str:
    """`cpu`, or the GPU's own name: another GPU rounds differently."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def preserved_torch_settings() -> Iterator[None]:
    """Whatever `configure_torch` sets is as before when this context ends."""
    mode, matmul = torch.get_deterministic_debug_mode(), torch.backends.cuda.matmul.allow_tf32
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark, convolution = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = benchmark, convolution
        torch.backends.cuda.matmul.allow_tf32 = matmul


def fork_random_state(device: torch.device) -> AbstractContextManager[None]:
    """A context that may seed torch: the random state of the CPU and of the device are then as before."""
    if device.type == "cpu":
        return torch.random.fork_rng(devices=[])
    return torch.random.fork_rng(devices=[device], device_type=device.type)


def random_state(device: torch.device) -> list[torch.Tensor]:
    """Torch's random state: of the CPU, and of a GPU that is used."""
    if device.type == "cpu":
        return [torch.get_rng_state()]
    return [torch.get_rng_state(), torch.get_device_module(device).get_rng_state(device)]


def restore_random_state(device: torch.device, state: list[torch.Tensor]) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(state[0])
    if state[1:]:
        torch.get_device_module(device).set_rng_state(state[1], device)


@contextmanager
def explain_nondeterminism(network: str) -> Iterator[None]:
    """A context that names the operator which has no deterministic implementation on the device.

    Raises:
        UserError: instead of torch's error.
    """
    try:
        yield
    except RuntimeError as error:
        if not (operator := re.match(r"(\S+) does not have a deterministic implementation", str(error))):
            raise
        raise UserError(
            f"params.yaml: train.deterministic: true: {operator[1]}, which {network} needs, has no deterministic "
            "implementation on this device; give false (two runs then differ in their last bits), or another backbone"
        ) from None


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """What `train.precision` means on this device; auto: bf16, or fp16 on a GPU without it (T4), or fp32.

    Raises:
        UserError: the device does not compute in that precision.
    """
    if precision == "fp32":
        return torch.float32
    supported = [torch.bfloat16] if computes_bf16(device) else []
    supported += [] if device.type == "cpu" else [torch.float16]
    if precision == "auto":
        return supported[0] if supported else torch.float32
    wanted = next(dtype for dtype, name in PRECISIONS.items() if name == precision)
    if wanted not in supported:
        raise UserError(
            f"params.yaml: train.precision: {precision!r}: this machine does not compute in {precision}; "
            "use auto or fp32"
        )
    return wanted


def computes_bf16(device: torch.device) -> bool:
    """Whether bf16 matrices are multiplied in hardware; emulation would be slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    except AttributeError:  # a build for another kind of processor
        return False
