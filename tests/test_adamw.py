"""The same steps as torch.optim.AdamW's, to the bit, without its imports."""

import subprocess
import sys
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from headstart.adamw import AdamW, Group


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3), nn.Linear(3, 2))


def test_the_same_bits_as_torchs_own() -> None:
    ours, theirs = network(), network()
    weight, bias, weight2, bias2, *last = ours.parameters()
    groups = [Group([weight, weight2], 1.0), Group([bias, bias2], 0.5, weight_decay=0.0), Group(last, 0.25)]
    one = AdamW(groups, weight_decay=0.1)
    weight, bias, weight2, bias2, *last = theirs.parameters()
    same: list[dict[str, Any]] = [
        {"params": [weight, weight2]},
        {"params": [bias, bias2], "weight_decay": 0.0},
        {"params": last},
    ]
    other = torch.optim.AdamW(same, weight_decay=0.1, foreach=True)
    for step in range(20):
        inputs = torch.randn(6, 5, generator=torch.Generator().manual_seed(step))
        rate = 0.01 / (step + 1)
        for group, scale in zip(other.param_groups, (1.0, 0.5, 0.25), strict=True):
            group["lr"] = rate * scale
        for model in (ours, theirs):
            until = 3 if step % 3 == 0 else 4  # now and then the last layer has no gradient
            loss = F.mse_loss(model[:until](inputs)[:, :2], inputs[:, :2])
            one.clear() if model is ours else other.zero_grad()
            torch.autograd.backward(loss)
        one.step(rate)
        other.step()
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, reference)


def test_a_gradient_in_another_memory_layout() -> None:
    torch.manual_seed(0)
    values, gradient, found = torch.randn(8, 6, 3, 3), torch.randn(8, 6, 3, 3), []
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = nn.Parameter(values.clone(memory_format=layout))
        weight.grad = gradient.clone()
        AdamW([Group([weight])], 0.1).step(0.1)
        found.append(weight.detach())
    torch.testing.assert_close(found[0], found[1])


def test_a_step_does_not_import_the_compiler() -> None:
    code = (
        "import sys, torch\nfrom headstart.adamw import AdamW, Group\n"
        "weight = torch.nn.Parameter(torch.ones(3))\ntorch.autograd.backward(weight.sum())\n"
        "optimizer = AdamW([Group([weight])], 0.1)\noptimizer.step(0.1)\noptimizer.clear()\n"
        "assert weight.grad is None and not torch.equal(weight, torch.ones(3))\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
