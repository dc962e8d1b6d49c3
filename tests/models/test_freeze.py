"""Blocks are timm's, every parameter is in one of them, and frozen modules stay in eval mode."""

import pytest
import timm
import torch
from torch import nn

from headstart.base.errors import UserError
from headstart.models.freeze import (
    block_table,
    freeze_blocks,
    list_blocks,
    resolve_freeze_depth,
    set_train_mode,
    table_of_kept_epoch,
)

NAMES = ["test_efficientnet", "test_resnet", "test_byobnet", "test_vit", "test_convnext", "resnetv2_18", "densenet121"]


def network(name: str = "test_efficientnet") -> nn.Module:
    backbone: nn.Module = timm.create_model(name, num_classes=0)
    return backbone


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_in_one_block(name: str) -> None:
    backbone = network(name)
    blocks = list_blocks(backbone)
    names = [parameter for block in blocks for parameter in block.parameters]
    assert sorted(names) == sorted(key for key, _ in backbone.named_parameters())
    assert sum(block.size for block in blocks) == sum(parameter.numel() for parameter in backbone.parameters())
    assert [block.number for block in blocks] == list(range(len(blocks)))
    assert all(any(name.startswith(block.name) for name in block.parameters) for block in blocks)


@pytest.mark.parametrize("name", NAMES)
def test_blocks_count_from_the_input(name: str) -> None:
    """A gradient cannot reach below the first block that trains; the blocks are in the order in which they run."""
    backbone = network(name).eval()
    blocks = list_blocks(backbone)
    first = next(iter(backbone.named_parameters()))[0]
    assert first in blocks[0].parameters, "the stem is number 0"
    size = 160 if name == "test_vit" else 64
    freeze_blocks(backbone, blocks, len(blocks) // 2)
    torch.autograd.backward(backbone(torch.randn(1, 3, size, size)).square().sum())
    reached = {key for key, parameter in backbone.named_parameters() if parameter.grad is not None}
    assert reached == {key for block in blocks[len(blocks) // 2 :] for key in block.parameters}


def test_blocks_of_a_known_network() -> None:
    names = [block.name for block in list_blocks(network())]
    assert names == ["conv_stem", "blocks.0.0", "blocks.1.0", "blocks.2.0", "blocks.3.0", "blocks.4.0.conv_pw"]
    assert len(list_blocks(network("tf_efficientnet_lite0"))) == 17


def test_a_network_without_blocks() -> None:
    with pytest.raises(
        UserError, match=r"model\.backbone: timm does not define the blocks of its PoolingVision.*, so that none"
    ):
        list_blocks(network("pit_ti_224"))


@pytest.mark.parametrize(("freeze_depth", "blocks"), [(0, 0), (1, 1), (6, 6), (-1, 6)])
def test_depths(freeze_depth: int, blocks: int) -> None:
    assert resolve_freeze_depth(list_blocks(network()), freeze_depth) == blocks


def test_too_large_a_depth() -> None:
    with pytest.raises(UserError) as caught:
        resolve_freeze_depth(list_blocks(network()), 7)
    assert str(caught.value) == (
        "params.yaml: fine_tune.freeze_depth: 7: this backbone has 6 blocks; give 0 to 6, or -1 for all"
    )


@pytest.mark.parametrize("depth", range(7))
def test_frozen_parameters_have_no_gradient_and_the_others_do(depth: int) -> None:
    backbone = network()
    blocks = list_blocks(backbone)
    for parameter in backbone.parameters():
        parameter.requires_grad_(depth % 2 == 0)  # whatever it was before
    frozen = freeze_blocks(backbone, blocks, depth)
    assert frozen == {key for block in blocks[:depth] for key in block.parameters}
    assert {key for key, parameter in backbone.named_parameters() if not parameter.requires_grad} == frozen


def test_frozen_batch_norm_is_in_eval_mode_and_the_rest_trains() -> None:
    backbone = network()
    blocks = list_blocks(backbone)
    freeze_blocks(backbone, blocks, 3)
    set_train_mode(backbone)
    for name, module in backbone.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            parameter = f"{name}.weight"
            frozen = any(parameter in block.parameters for block in blocks[:3])
            assert module.training is not frozen, name
    freeze_blocks(backbone, blocks, 0)
    set_train_mode(backbone)
    assert all(module.training for module in backbone.modules()), "what trains again is in train mode again"


@pytest.mark.parametrize("depth", [0, 2, 5])
def test_statistics_of_frozen_blocks_stay(depth: int) -> None:
    backbone = network()
    blocks = list_blocks(backbone)
    freeze_blocks(backbone, blocks, depth)
    before = {key: buffer.clone() for key, buffer in backbone.named_buffers()}
    set_train_mode(backbone)
    backbone(torch.randn(8, 3, 64, 64) + 1)
    frozen = {key.rpartition(".")[0] for block in blocks[:depth] for key in block.parameters}
    for key, buffer in backbone.named_buffers():
        assert torch.equal(buffer, before[key]) == (key.rpartition(".")[0] in frozen), key


def test_the_table_of_blocks() -> None:
    backbone = network()
    rows = block_table(nn.ModuleDict({"trunk": backbone, "head": nn.Linear(256, 3)}), list_blocks(backbone), 2)
    assert [row[3] for row in rows] == ["frozen"] * 2 + ["trains"] * 5
    assert rows[0] == ("0", "conv_stem", 24 * 3 * 9 + 2 * 24, "frozen")
    assert rows[-1] == ("", "head", 256 * 3 + 3, "trains")
    kept = table_of_kept_epoch(rows, 4, 3)
    assert [row[3] for row in kept] == ["frozen"] * 4 + ["trains"] * 3
    assert [row[:3] for row in kept] == [row[:3] for row in rows]
    assert [row[3] for row in table_of_kept_epoch(rows, 6, 0)] == ["frozen"] * 7
