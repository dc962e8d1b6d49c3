"""Both parts of a split network compute what the whole computes, and the lower part is all that is frozen."""

import pytest
import timm
import torch
from torch import nn

from headstart.base.errors import UserError
from headstart.engine.cpu.optimize import optimize
from headstart.engine.device import Compute
from headstart.engine.fold_batch_norm import fold_batch_norm
from headstart.features.split_network import split_network
from headstart.models.freeze import freeze_blocks, list_blocks, set_train_mode

# name, side of its pictures in pixels, freeze depth
NETWORKS = [
    ("test_efficientnet", 64, 3),
    ("test_resnet", 64, 3),
    ("test_byobnet", 64, 2),
    ("test_vit", 160, 2),
    ("test_convnext", 64, 2),
    ("resnetv2_18", 64, 4),
    ("mobilenetv3_small_050", 64, 6),
    ("densenet121", 64, 3),
]


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    backbone: nn.Module = timm.create_model(name, num_classes=0)
    return backbone.eval()


@pytest.mark.parametrize(("name", "size", "depth"), NETWORKS)
def test_both_parts_together_are_the_whole(name: str, size: int, depth: int) -> None:
    backbone = network(name)
    frozen = freeze_blocks(backbone, list_blocks(backbone), depth)
    parts = split_network(backbone, frozen, size)
    pictures = torch.randn(3, 3, size, size)
    rows = parts.lower(pictures)
    assert rows.shape == (3, parts.width)
    torch.testing.assert_close(parts.upper(rows), backbone(pictures))


@pytest.mark.parametrize(("name", "size", "depth"), NETWORKS)
def test_what_trains_is_in_the_upper_part_and_has_the_same_gradient(name: str, size: int, depth: int) -> None:
    backbone = network(name)
    frozen = freeze_blocks(backbone, list_blocks(backbone), depth)
    parts = split_network(backbone, frozen, size)
    trained = {name for name, _ in backbone.named_parameters()} - frozen
    lower = {id(parameter) for parameter in parts.lower.parameters()}
    assert not any(parameter.requires_grad for parameter in parts.lower.parameters())
    assert lower <= {id(backbone.get_parameter(name)) for name in frozen}
    assert {id(backbone.get_parameter(name)) for name in trained} <= {id(p) for p in parts.upper.parameters()}
    pictures = torch.randn(2, 3, size, size)
    gradients = []
    for outputs in (lambda: backbone(pictures), lambda: parts.upper(parts.lower(pictures).detach())):
        backbone.zero_grad()
        torch.autograd.backward(outputs().square().sum())  # type: ignore[no-untyped-call]
        gradients.append({name: backbone.get_parameter(name).grad for name in trained})
    for name in trained:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], rtol=1e-3, atol=1e-4)


def test_networks_that_are_folded_and_optimized_can_be_split() -> None:
    backbone, _ = fold_batch_norm(network("test_efficientnet"), 64)
    frozen = freeze_blocks(backbone, list_blocks(network("test_efficientnet")), 4)
    parts = split_network(backbone, frozen, 64)
    optimize(nn.ModuleDict({"trunk": backbone}), Compute(torch.device("cpu")), training=True)
    pictures = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(parts.upper(parts.lower(pictures)), backbone(pictures))


def test_with_all_blocks_frozen_the_upper_part_is_empty() -> None:
    backbone = network("test_efficientnet")
    blocks = list_blocks(backbone)
    parts = split_network(backbone, freeze_blocks(backbone, blocks, len(blocks)), 64)
    assert parts.width == 256
    assert not list(parts.upper.parameters())


def test_modes_reach_the_parts() -> None:
    backbone = network("test_efficientnet")
    parts = split_network(backbone, freeze_blocks(backbone, list_blocks(backbone), 3), 64)
    set_train_mode(parts.upper)
    norms = [module for module in parts.upper.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(module.training for module in norms)


def test_nothing_frozen() -> None:
    backbone = network("test_efficientnet")
    with pytest.raises(UserError, match=r"fine_tune\.cache_frozen: true: EfficientNet cannot be split .*nothing of it"):
        split_network(backbone, set(), 64)


class DataDependent(nn.Module):
    """Control flow that depends on the picture cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = self.one(pictures)
        return self.other(x) if x.sum() > 0 else x


def test_a_network_that_cannot_be_traced_is_one_line() -> None:
    with pytest.raises(UserError, match=r"DataDependent cannot be split at freeze_depth .*; give false") as caught:
        split_network(DataDependent(), {"one.weight", "one.bias"}, 16)
    assert "\n" not in str(caught.value)
