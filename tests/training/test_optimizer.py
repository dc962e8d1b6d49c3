"""AdamW: the same bits as torch.optim.AdamW, without its imports. Parameter groups with layer decay."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tiny
from conftest import Project
from headstart.models import classifier
from headstart.models.file import read_model_file
from headstart.models.freeze import Block, freeze_blocks, list_blocks
from headstart.params.root import HeadParams
from headstart.training import train_head
from headstart.training.loop_state import BestEpoch
from headstart.training.optimizer import AdamW, ParamGroup, param_groups, param_groups_layer_decay


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3), nn.Linear(3, 2))


def test_the_same_bits_as_torchs_own() -> None:
    ours, theirs = network(), network()
    weight, bias, weight2, bias2, *last = ours.parameters()
    groups = [
        ParamGroup([weight, weight2], 1.0),
        ParamGroup([bias, bias2], 0.5, weight_decay=0.0),
        ParamGroup(last, 0.25),
    ]
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
            one.zero_grad() if model is ours else other.zero_grad()
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
        AdamW([ParamGroup([weight])], 0.1).step(0.1)
        found.append(weight.detach())
    torch.testing.assert_close(found[0], found[1])


def test_the_backbones_rates_are_apart_from_the_heads() -> None:
    network = nn.Module()
    network.trunk = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network.head = nn.Linear(3, 2)
    blocks = [Block(n, str(n), (f"{n}.weight", f"{n}.bias"), 12) for n in range(2)]
    rates = {
        id(parameter): group.lr_scale
        for group in param_groups_layer_decay(network, blocks, 0.5, backbone_lr_scale=0.1)
        for parameter in group.parameters
    }
    found = [rates[id(layer.weight)] for layer in (*network.trunk, network.head)]
    assert found == pytest.approx([0.1 * 0.25, 0.1 * 0.5, 1.0])


def test_a_step_does_not_import_the_compiler() -> None:
    code = (
        "import sys, torch\nfrom headstart.training.optimizer import AdamW, ParamGroup\n"
        "weight = torch.nn.Parameter(torch.ones(3))\ntorch.autograd.backward(weight.sum())\n"
        "optimizer = AdamW([ParamGroup([weight])], 0.1)\noptimizer.step(0.1)\noptimizer.zero_grad()\n"
        "assert weight.grad is None and not torch.equal(weight, torch.ones(3))\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_biases_and_norms_of_a_head_have_no_weight_decay(root: Path) -> None:
    head = classifier.create_head(12, 3, HeadParams(hidden=(8,), batch_norm=True))
    groups = param_groups(head)
    decays = {id(p): group.weight_decay is None for group in groups for p in group.parameters}
    assert {name for name, p in head.named_parameters() if decays[id(p)]} == {"0.weight", "4.weight"}
    assert len(decays) == len(list(head.parameters()))
    seen: list[ParamGroup] = []

    def loop(network: nn.Module, groups: list[ParamGroup], **_: object) -> BestEpoch:
        seen.extend(groups)
        return BestEpoch(0, 0, {})

    train_head.train_classifier_head(tiny.make_params(train_head={"weight_decay": 0.1}), root, loop)
    assert [(group.weight_decay, {p.ndim for p in group.parameters}) for group in seen] == [(None, {2}), (0.0, {1})]


def test_each_block_has_the_next_ones_learning_rate_times_the_decay(project: Project) -> None:
    network = classifier.build(*read_model_file(project.root / "stages/fine-tune/model.safetensors"))
    blocks = list_blocks(network.trunk)
    freeze_blocks(network.trunk, blocks, 2)
    groups = param_groups_layer_decay(network, blocks, 0.5)
    scale = {id(p): group.lr_scale for group in groups for p in group.parameters}
    decays = {id(p): group.weight_decay is None for group in groups for p in group.parameters}
    number = {f"trunk.{name}": block.number for block in blocks for name in block.parameters}
    for name, parameter in network.named_parameters():
        if number.get(name, 9) < 2:
            assert id(parameter) not in scale
        else:
            assert scale[id(parameter)] == 0.5 ** (6 - number.get(name, 6)), name
            assert decays[id(parameter)] == (parameter.ndim > 1), "biases and norms have no weight decay"
