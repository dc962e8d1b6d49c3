"""Group norm of bf16 feature maps: torch's own but for rounding, and nearer to fp32."""

import copy

import pytest
import torch
from torch import Tensor, nn

from headstart.engine.cpu.group_norm import use_fast_group_norm


def step(network: nn.Module, x: Tensor, weight: Tensor, bf16: bool) -> list[Tensor]:
    network.zero_grad()
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        y = network(x)
    torch.autograd.backward((y.float() * weight).sum())
    return [y.detach().float(), *(each.grad.float() for each in (x, *network.parameters()) if each.grad is not None)]


def relative_errors(results: list[Tensor], exact: list[Tensor]) -> list[float]:
    return [float((one - other).norm() / other.norm()) for one, other in zip(results, exact, strict=True)]


@pytest.mark.parametrize("side", [5, 20])
def test_as_near_to_fp32_as_torchs_own(side: int) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.GroupNorm(8, 32), nn.ReLU(), nn.Conv2d(32, 4, 1))
    plain.to(memory_format=torch.channels_last)
    fast = copy.deepcopy(plain)
    use_fast_group_norm(fast)
    x = torch.randn(2, 16, side, side).to(memory_format=torch.channels_last)
    weight = torch.randn(2, 4, side, side)
    exact = step(plain, x, weight, bf16=False)
    assert all(torch.equal(one, other) for one, other in zip(step(fast, x, weight, bf16=False), exact, strict=True))
    theirs, ours = (relative_errors(step(network, x, weight, bf16=True), exact) for network in (plain, fast))
    assert all(own < 1.2 * other < 0.1 for own, other in zip(ours, theirs, strict=True)), (ours, theirs)
