"""Blocks are timm's, every parameter is in one of them, and what is frozen stays in eval mode."""

import pytest
import timm
import torch
from torch import nn

from headstart.errors import UserError
from headstart.freeze import blocks, depth_of, freeze, table, train_mode

NAMES = ["test_efficientnet", "test_resnet", "test_byobnet", "test_vit", "test_convnext", "resnetv2_18", "densenet121"]


def network(name: str = "test_efficientnet") -> nn.Module:
    made: nn.Module = timm.create_model(name, num_classes=0)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_in_one_block(name: str) -> None:
    trunk = network(name)
    some = blocks(trunk)
    names = [parameter for block in some for parameter in block.parameters]
    assert sorted(names) == sorted(key for key, _ in trunk.named_parameters())
    assert sum(block.size for block in some) == sum(parameter.numel() for parameter in trunk.parameters())
    assert [block.number for block in some] == list(range(len(some)))
    assert all(any(name.startswith(block.name) for name in block.parameters) for block in some)


@pytest.mark.parametrize("name", NAMES)
def test_blocks_count_from_the_input(name: str) -> None:
    """A gradient cannot reach below the first block that trains; the order of the blocks is the order of the passes."""
    trunk = network(name).eval()
    some = blocks(trunk)
    first = next(iter(trunk.named_parameters()))[0]
    assert first in some[0].parameters, "the stem is number 0"
    size = 160 if name == "test_vit" else 64
    freeze(trunk, some, len(some) // 2)
    torch.autograd.backward(trunk(torch.randn(1, 3, size, size)).square().sum())
    reached = {key for key, parameter in trunk.named_parameters() if parameter.grad is not None}
    assert reached == {key for block in some[len(some) // 2 :] for key in block.parameters}


def test_blocks_of_a_known_network() -> None:
    names = [block.name for block in blocks(network())]
    assert names == ["conv_stem", "blocks.0.0", "blocks.1.0", "blocks.2.0", "blocks.3.0", "blocks.4.0.conv_pw"]
    assert len(blocks(network("tf_efficientnet_lite0"))) == 17


def test_a_network_that_timm_does_not_divide() -> None:
    with pytest.raises(UserError, match=r"model\.backbone: timm does not say which blocks its PoolingVision.* has"):
        blocks(network("pit_ti_224"))


@pytest.mark.parametrize(("asked", "meant"), [(0, 0), (1, 1), (6, 6), (-1, 6)])
def test_depths(asked: int, meant: int) -> None:
    assert depth_of(blocks(network()), asked) == meant


def test_too_large_a_depth() -> None:
    with pytest.raises(UserError) as caught:
        depth_of(blocks(network()), 7)
    assert str(caught.value) == (
        "params.yaml: fine_tune.freeze_depth: 7: this backbone has 6 blocks; give 0 to 6, or -1 for all"
    )


@pytest.mark.parametrize("depth", range(7))
def test_frozen_parameters_have_no_gradient_and_the_others_do(depth: int) -> None:
    trunk = network()
    some = blocks(trunk)
    for parameter in trunk.parameters():
        parameter.requires_grad_(depth % 2 == 0)  # whatever it was before
    frozen = freeze(trunk, some, depth)
    assert frozen == {key for block in some[:depth] for key in block.parameters}
    assert {key for key, parameter in trunk.named_parameters() if not parameter.requires_grad} == frozen


def test_frozen_batch_norm_is_in_eval_mode_and_the_rest_trains() -> None:
    trunk = network()
    some = blocks(trunk)
    freeze(trunk, some, 3)
    train_mode(trunk)
    for name, module in trunk.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            parameter = f"{name}.weight"
            below = any(parameter in block.parameters for block in some[:3])
            assert module.training is not below, name
    freeze(trunk, some, 0)
    train_mode(trunk)
    assert all(module.training for module in trunk.modules()), "what trains again is in train mode again"


@pytest.mark.parametrize("depth", [0, 2, 5])
def test_statistics_of_frozen_blocks_stay(depth: int) -> None:
    trunk = network()
    some = blocks(trunk)
    freeze(trunk, some, depth)
    before = {key: buffer.clone() for key, buffer in trunk.named_buffers()}
    train_mode(trunk)
    trunk(torch.randn(8, 3, 64, 64) + 1)
    below = {key.rpartition(".")[0] for block in some[:depth] for key in block.parameters}
    for key, buffer in trunk.named_buffers():
        assert torch.equal(buffer, before[key]) == (key.rpartition(".")[0] in below), key


def test_the_table_says_what_trains() -> None:
    trunk = network()
    rows = table(nn.ModuleDict({"trunk": trunk, "head": nn.Linear(256, 3)}), blocks(trunk), 2)
    assert [row[3] for row in rows] == ["frozen"] * 2 + ["trains"] * 5
    assert rows[0] == ("0", "conv_stem", 24 * 3 * 9 + 2 * 24, "frozen")
    assert rows[-1] == ("", "head", 256 * 3 + 3, "trains")
