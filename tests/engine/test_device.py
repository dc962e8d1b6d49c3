"""Device and precision are chosen, torch is seeded, and a precision the machine lacks is an error."""

import os

import pytest
import torch
from torch import nn

from headstart.base.errors import UserError
from headstart.base.memory import keep_freed_memory
from headstart.engine import device
from headstart.engine.device import Compute, configure_torch
from headstart.params.training import TrainParams


@pytest.mark.parametrize(
    ("precision", "supported", "bf16"),
    [("auto", True, True), ("auto", False, False), ("fp32", True, False), ("bf16", True, True)],
)
def test_the_precision(monkeypatch: pytest.MonkeyPatch, precision: str, supported: bool, bf16: bool) -> None:
    monkeypatch.setattr(device, "computes_bf16", lambda device: supported)
    assert configure_torch(TrainParams.model_validate({"precision": precision}), 0).bf16 is bf16


def test_bf16_that_the_machine_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "computes_bf16", lambda device: False)
    with pytest.raises(UserError, match=r"params\.yaml: train\.precision: 'bf16': this machine .* use auto or fp32"):
        configure_torch(TrainParams(precision="bf16"), 0)


def test_torch_is_seeded_and_deterministic() -> None:
    samples = []
    for seed in (5, 5, 6):
        configure_torch(TrainParams(), seed)
        samples.append(torch.rand(4))
    assert torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"]


def test_autocast_computes_in_the_chosen_precision() -> None:
    layer, x = nn.Linear(4, 4), torch.randn(2, 4)
    for bf16, kind in ((True, torch.bfloat16), (False, torch.float32)):
        with Compute(torch.device("cpu"), bf16=bf16).autocast():
            assert layer(x).dtype == kind
    assert layer(x).dtype == torch.float32


def test_the_network_is_moved_in_channels_last() -> None:
    network = Compute(torch.device("cpu"), bf16=False).to_device(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()))
    assert next(network.parameters()).is_contiguous(memory_format=torch.channels_last)


def test_the_switch_of_the_cpu_kernels() -> None:
    assert configure_torch(TrainParams(), 0).cpu_kernels
    assert not configure_torch(TrainParams(cpu_kernels=False), 0).cpu_kernels


def test_descriptions() -> None:
    assert Compute(torch.device("cpu"), bf16=True).description() == "cpu bf16"
    assert Compute(torch.device("cpu"), bf16=False).description() == "cpu fp32"
    assert Compute(torch.device("cpu"), bf16=True, cpu_kernels=False).description() == "cpu bf16 plain"
    assert Compute(torch.device("cuda"), bf16=True, cpu_kernels=False).description() == "cuda bf16"


def test_machines_without_a_mallopt_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: object) -> object:
        raise OSError("no such library")

    monkeypatch.setattr("headstart.base.memory.ctypes.CDLL", missing)
    assert keep_freed_memory() is False
    configure_torch(TrainParams(), 0)
