"""Features of blocks: means and maxima of what they put out, which blocks, and networks that have none to give."""

from typing import Any

import pytest
import torch
from torch import nn

import tiny
from headstart.engine.compile import compile_backbone
from headstart.engine.trace import TRACE_ERRORS, trace_layers
from headstart.models.backbone import create_backbone
from headstart.models.block_features import MAX_WIDTH, BlockFeatures, block_features, find_levels
from headstart.models.classifier import Classifier


@torch.no_grad()
def test_the_pooled_features_come_first_then_means_and_maxima_of_each_block() -> None:
    network: Any = create_backbone(tiny.TRUNK).eval()
    pictures = torch.randn(3, 3, 64, 64)
    features = BlockFeatures(network, ["blocks.1.0", "blocks.3.0"])(pictures)
    maps = network.blocks[:2](network.bn1(network.conv_stem(pictures)))
    outputs = [maps, network.blocks[2:4](maps)]
    torch.testing.assert_close(features[:, :256], network(pictures))
    start = 256
    for output in outputs:
        for part in (output.flatten(2).mean(2), output.flatten(2).max(2).values):
            torch.testing.assert_close(features[:, start : start + part.shape[1]], part)
            start += part.shape[1]
    assert features.shape[1] == start
    assert not any(module._forward_hooks for module in network.modules())


@torch.no_grad()
def test_tokens_are_pooled_over_the_tokens() -> None:
    network: Any = create_backbone("test_vit").eval()
    pictures = torch.randn(2, 3, 160, 160)
    features = block_features(network, pictures, ["blocks.5:tokens"])
    outputs = network.norm_pre(network.patch_drop(network._pos_embed(network.patch_embed(pictures))))
    tokens = network.blocks(outputs)
    torch.testing.assert_close(features[:, -128:], torch.cat([tokens.mean(1), tokens.max(1).values], 1))


@pytest.mark.parametrize(
    ("name", "size", "levels"),
    [
        (tiny.TRUNK, 64, ["blocks.1.0", "blocks.2.0", "blocks.3.0", "blocks.4.0"]),
        ("resnet18", 64, [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]),
        ("test_vit", 160, [f"blocks.{number}:tokens" for number in range(6)]),
        ("resnet50", 64, ["layer1.0", "layer2.2", "layer3.3", "layer4.2"]),  # every fifth from the last one
    ],
)
def test_blocks_of_networks_of_all_kinds(name: str, size: int, levels: list[str]) -> None:
    network = create_backbone(name).eval()
    found, width = find_levels(network, size)
    assert found == levels
    pictures = torch.randn(2, 3, size, size)
    with torch.no_grad():
        last = network(pictures)
        features = BlockFeatures(network, levels)(pictures)
        assert features.shape == (2, width)
        assert width <= last.shape[1] + MAX_WIDTH
        torch.testing.assert_close(trace_layers(BlockFeatures(network, levels))(pictures), features)


def test_networks_that_have_none_to_give() -> None:
    """Not grouped by timm; and maps (n, h, w, c), whose pooling would mix up channels and places."""
    assert find_levels(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8)).eval(), 32) == ([], 0)
    assert find_levels(create_backbone("swin_tiny_patch4_window7_224").eval(), 224) == ([], 0)


def test_a_block_that_is_one_layer_of_a_graph_cannot_be_traced() -> None:
    network = create_backbone(tiny.TRUNK).eval()
    with pytest.raises(TRACE_ERRORS):
        trace_layers(BlockFeatures(network, ["conv_stem"]))
    assert not any(module._forward_hooks for module in network.modules())


def test_compiled_blocks_give_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """`train.compile`: the hooks are part of what is compiled. Without its C++ backend, which takes minutes."""
    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function, *, dynamic, options: compile_(function, dynamic=dynamic, backend="aot_eager")
    )
    torch.manual_seed(0)
    network = create_backbone(tiny.TRUNK).eval()
    levels, width = find_levels(network, 64)
    model, pictures = Classifier(network, nn.Linear(width, 2), levels).eval(), torch.randn(2, 3, 64, 64)

    def gradients() -> list[torch.Tensor]:
        return list(torch.autograd.grad(model(pictures).square().sum(), list(model.parameters())))

    eager = gradients()
    compile_backbone(model)
    torch.testing.assert_close(gradients(), eager)
    torch.compiler.reset()
