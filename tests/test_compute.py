"""Device and precision are chosen, torch is seeded, and what cannot be had is said."""

import os

import pytest
import torch
from torch import nn

from headstart import compute
from headstart.compute import Compute, prepare
from headstart.errors import UserError
from headstart.params import TrainParams


@pytest.mark.parametrize(
    ("precision", "can", "bf16"),
    [("auto", True, True), ("auto", False, False), ("fp32", True, False), ("bf16", True, True)],
)
def test_the_precision(monkeypatch: pytest.MonkeyPatch, precision: str, can: bool, bf16: bool) -> None:
    monkeypatch.setattr(compute, "_has_bf16", lambda device: can)
    assert prepare(TrainParams.model_validate({"precision": precision}), 0).bf16 is bf16


def test_bf16_that_the_machine_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "_has_bf16", lambda device: False)
    with pytest.raises(UserError, match=r"params\.yaml: train\.precision: 'bf16': this machine .* use auto or fp32"):
        prepare(TrainParams(precision="bf16"), 0)


def test_torch_is_seeded_and_deterministic() -> None:
    draws = []
    for seed in (5, 5, 6):
        prepare(TrainParams(), seed)
        draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"]


def test_autocast_computes_in_the_chosen_precision() -> None:
    layer, x = nn.Linear(4, 4), torch.randn(2, 4)
    for bf16, kind in ((True, torch.bfloat16), (False, torch.float32)):
        with Compute(torch.device("cpu"), bf16=bf16).autocast():
            assert layer(x).dtype == kind
    assert layer(x).dtype == torch.float32


def test_the_network_is_placed_in_the_quick_layout() -> None:
    network = Compute(torch.device("cpu"), bf16=False).place(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()))
    assert next(network.parameters()).is_contiguous(memory_format=torch.channels_last)


def test_names() -> None:
    assert Compute(torch.device("cpu"), bf16=True).name() == "cpu bf16"
    assert Compute(torch.device("cpu"), bf16=False).name() == "cpu fp32"


def test_machines_without_a_mallopt_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: object) -> object:
        raise OSError("no such library")

    monkeypatch.setattr("headstart.compute.ctypes.CDLL", missing)
    assert compute.keep_memory() is False
    prepare(TrainParams(), 0)
