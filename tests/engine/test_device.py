"""Device and precision are chosen, torch is seeded, and a precision the machine lacks is an error."""

import os
from typing import Any

import pytest
import torch
from torch import nn

from headstart.base.errors import UserError
from headstart.base.memory import keep_freed_memory
from headstart.engine import device
from headstart.engine.device import Compute, configure_torch, explain_nondeterminism, preserved_torch_settings
from headstart.params.training import TrainParams


@pytest.mark.parametrize(
    ("precision", "machine", "bf16", "dtype"),
    [
        ("auto", "cpu", True, torch.bfloat16),
        ("auto", "cpu", False, torch.float32),
        ("auto", "cuda", True, torch.bfloat16),
        ("auto", "cuda", False, torch.float16),
        ("fp32", "cuda", True, torch.float32),
        ("bf16", "cpu", True, torch.bfloat16),
        ("fp16", "cuda", True, torch.float16),
        ("bf16", "cuda", False, None),
        ("fp16", "cpu", True, None),
    ],
)
def test_the_precision(
    monkeypatch: pytest.MonkeyPatch, precision: str, machine: str, bf16: bool, dtype: torch.dtype | None
) -> None:
    monkeypatch.setattr(device, "computes_bf16", lambda device: bf16)
    monkeypatch.setattr(device, "chosen_device", lambda: torch.device(machine))
    params = TrainParams.model_validate({"precision": precision})
    if dtype:
        assert configure_torch(params, 0).dtype == dtype
    else:
        with pytest.raises(
            UserError, match=rf"params\.yaml: train\.precision: '{precision}': this machine .* use auto or fp32"
        ):
            configure_torch(params, 0)


def test_torch_is_seeded_and_deterministic() -> None:
    samples = []
    for seed in (5, 5, 6):
        configure_torch(TrainParams(), seed)
        samples.append(torch.rand(4))
    assert torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"]


def test_operators_without_a_deterministic_implementation_may_be_allowed() -> None:
    with preserved_torch_settings():
        configure_torch(TrainParams(deterministic=False), 0)
        assert not torch.are_deterministic_algorithms_enabled()


def test_an_operator_without_a_deterministic_implementation_is_named() -> None:
    # As ATen's alertNotDeterministic says it.
    error = (
        "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set "
        "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for this operation, or ..."
    )
    with (
        pytest.raises(
            UserError, match=r"train\.deterministic: true: adaptive_avg_pool2d_backward_cuda, which vgg16 needs"
        ),
        explain_nondeterminism("vgg16"),
    ):
        raise RuntimeError(error)
    with pytest.raises(RuntimeError, match="out of memory"), explain_nondeterminism("vgg16"):
        raise RuntimeError("out of memory")


def test_fp32_is_not_tf32_and_all_settings_are_as_before_afterwards() -> None:
    def settings() -> list[object]:
        cudnn: Any = torch.backends.cudnn
        cuda: Any = torch.backends.cuda
        precisions = [cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision, cuda.matmul.fp32_precision]
        return [
            cudnn.allow_tf32,
            cuda.matmul.allow_tf32,
            torch.get_deterministic_debug_mode(),
            cudnn.benchmark,
            *precisions,
        ]

    before = settings()
    with preserved_torch_settings():
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = True
        torch.set_deterministic_debug_mode("default")
        others = settings()
        with preserved_torch_settings():
            configure_torch(TrainParams(precision="fp32"), 0)
            assert settings()[:4] == [False, False, 2, False]
            assert "tf32" not in settings()
        assert settings() == others
    assert settings() == before


@pytest.mark.parametrize(("own", "usable"), [((7, 5), True), ((9, 0), True), ((7, 0), False)])
def test_a_gpu_that_is_older_than_the_build(
    monkeypatch: pytest.MonkeyPatch, own: tuple[int, int], usable: bool
) -> None:
    cuda = {
        "is_available": True,
        "current_device": 1,
        "get_device_capability": own,
        "get_arch_list": ["sm_75", "sm_90a", "compute_120"],
        "get_device_name": "Tesla V100",
    }
    for name, value in cuda.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    if usable:
        assert device.chosen_device() == torch.device("cuda", 1)
    else:
        with pytest.raises(UserError, match=r"Tesla V100: its compute capability is 7\.0, torch .* begins with 7\.5"):
            device.chosen_device()


def test_the_random_state_of_the_cpu_is_restored() -> None:
    state = device.random_state(torch.device("cpu"))
    first = torch.rand(3)
    device.restore_random_state(torch.device("cpu"), state)
    with device.fork_random_state(torch.device("cpu")):
        torch.manual_seed(7)
    assert torch.equal(first, torch.rand(3))


def test_autocast_computes_in_the_chosen_precision() -> None:
    layer, x = nn.Linear(4, 4), torch.randn(2, 4)
    for dtype in (torch.bfloat16, torch.float32):
        with Compute(torch.device("cpu"), dtype).autocast():
            assert layer(x).dtype == dtype
    assert layer(x).dtype == torch.float32


def test_the_network_is_moved_in_channels_last() -> None:
    network = Compute(torch.device("cpu")).to_device(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()))
    assert next(network.parameters()).is_contiguous(memory_format=torch.channels_last)


def test_the_switch_of_the_cpu_kernels() -> None:
    assert configure_torch(TrainParams(), 0).cpu_kernels
    assert not configure_torch(TrainParams(cpu_kernels=False), 0).cpu_kernels


def test_descriptions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA T4")
    assert Compute(torch.device("cpu"), torch.bfloat16).description() == "cpu bf16"
    assert Compute(torch.device("cpu")).description() == "cpu fp32"
    assert Compute(torch.device("cpu"), torch.bfloat16, cpu_kernels=False).description() == "cpu bf16 plain"
    assert Compute(torch.device("cuda"), torch.bfloat16, cpu_kernels=False).description() == "NVIDIA T4 bf16"


def test_machines_without_a_mallopt_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: object) -> object:
        raise OSError("no such library")

    monkeypatch.setattr("headstart.base.memory.ctypes.CDLL", missing)
    assert keep_freed_memory() is False
    configure_torch(TrainParams(), 0)
