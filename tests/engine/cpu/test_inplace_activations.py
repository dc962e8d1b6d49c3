"""In-place activations without copies: the same values and gradients, and less is saved for the backward pass."""

import copy

import pytest
import timm
import torch
from torch import Tensor, nn

from headstart.engine.cpu.inplace_activations import avoid_activation_copies

KINDS = [nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Mish, nn.ReLU]


def step(network: nn.Module, x: Tensor, bf16: bool) -> tuple[list[Tensor], int]:
    """Output and gradients; and bytes that autograd saves, each block once."""
    network.zero_grad()
    saved: dict[int, int] = {}

    def record(tensor: Tensor) -> Tensor:
        saved[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16),
    ):
        y = network(x)
    y.float().square().sum().backward()
    return [y.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)], sum(saved.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bf16", [False, True])
def test_same_bits(kind: type[nn.Module], bf16: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), kind(inplace=True), nn.Conv2d(8, 8, 1), kind(inplace=True))
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.mul_(6)  # so that many values lie below 0, above 6 and between
    fast = copy.deepcopy(plain)
    avoid_activation_copies(fast)
    x = torch.randn(4, 3, 16, 16)
    expected, before = step(plain, x, bf16)
    found, after = step(fast, x, bf16)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert after < before if kind is nn.ReLU6 else after <= before
    with torch.no_grad():
        assert torch.equal(fast(x), plain(x))


def test_an_activation_that_is_not_in_place_is_unchanged() -> None:
    network = nn.Sequential(nn.ReLU6(), nn.Identity())
    avoid_activation_copies(network)
    assert type(network[0]) is nn.ReLU6


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "test_efficientnet", "mobilenetv3_small_050"])
def test_a_whole_network(name: str) -> None:
    torch.manual_seed(0)
    plain = timm.create_model(name, pretrained=False).eval()
    fast = copy.deepcopy(plain)
    avoid_activation_copies(fast)
    x = torch.randn(2, 3, 64, 64)
    (expected, before), (found, after) = step(plain, x, False), step(fast, x, False)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert after < before if "lite" in name else after <= before
