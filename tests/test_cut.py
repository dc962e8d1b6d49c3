"""A cut network gives what the whole gives, and its lower part is all that is frozen."""

import pytest
import timm
import torch
from torch import nn

from headstart import freeze
from headstart.cut import cut
from headstart.errors import UserError
from headstart.fold import fold
from headstart.tune import quicken

# name, side of its pictures, depth
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
    made: nn.Module = timm.create_model(name, num_classes=0)
    return made.eval()


@pytest.mark.parametrize(("name", "size", "depth"), NETWORKS)
def test_both_parts_together_are_the_whole(name: str, size: int, depth: int) -> None:
    trunk = network(name)
    frozen = freeze.freeze(trunk, freeze.blocks(trunk), depth)
    parts = cut(trunk, frozen, size)
    pictures = torch.randn(3, 3, size, size)
    rows = parts.lower(pictures)
    assert rows.shape == (3, parts.width)
    torch.testing.assert_close(parts.upper(rows), trunk(pictures))


@pytest.mark.parametrize(("name", "size", "depth"), NETWORKS)
def test_what_trains_lies_above_and_gets_the_same_gradient(name: str, size: int, depth: int) -> None:
    trunk = network(name)
    frozen = freeze.freeze(trunk, freeze.blocks(trunk), depth)
    parts = cut(trunk, frozen, size)
    trained = {name for name, _ in trunk.named_parameters()} - frozen
    below = {id(parameter) for parameter in parts.lower.parameters()}
    assert not any(parameter.requires_grad for parameter in parts.lower.parameters())
    assert below <= {id(trunk.get_parameter(name)) for name in frozen}
    assert {id(trunk.get_parameter(name)) for name in trained} <= {id(p) for p in parts.upper.parameters()}
    pictures = torch.randn(2, 3, size, size)
    gradients = []
    for given in (lambda: trunk(pictures), lambda: parts.upper(parts.lower(pictures).detach())):
        trunk.zero_grad()
        torch.autograd.backward(given().square().sum())  # type: ignore[no-untyped-call]
        gradients.append({name: trunk.get_parameter(name).grad for name in trained})
    for name in trained:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], rtol=1e-3, atol=1e-4)


def test_folded_and_quick_networks_can_be_cut() -> None:
    trunk, _ = fold(network("test_efficientnet"), 64)
    frozen = freeze.freeze(trunk, freeze.blocks(network("test_efficientnet")), 4)
    parts = cut(trunk, frozen, 64)
    quicken(trunk)
    pictures = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(parts.upper(parts.lower(pictures)), trunk(pictures))


def test_all_frozen_leaves_nothing_above() -> None:
    trunk = network("test_efficientnet")
    some = freeze.blocks(trunk)
    parts = cut(trunk, freeze.freeze(trunk, some, len(some)), 64)
    assert parts.width == 256
    assert not list(parts.upper.parameters())


def test_modes_reach_the_parts() -> None:
    trunk = network("test_efficientnet")
    parts = cut(trunk, freeze.freeze(trunk, freeze.blocks(trunk), 3), 64)
    freeze.train_mode(parts.upper)
    norms = [module for module in parts.upper.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(module.training for module in norms)


def test_nothing_frozen() -> None:
    trunk = network("test_efficientnet")
    with pytest.raises(UserError, match=r"fine_tune\.cache_frozen: true: EfficientNet cannot be cut .*nothing of it"):
        cut(trunk, set(), 64)


class Wayward(nn.Module):
    """Its way depends on the picture: no graph can be drawn of it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = self.one(pictures)
        return self.other(x) if x.sum() > 0 else x


def test_a_network_that_cannot_be_traced_is_one_line() -> None:
    with pytest.raises(UserError, match=r"Wayward cannot be cut at freeze_depth .*; give false") as caught:
        cut(Wayward(), {"one.weight", "one.bias"}, 16)
    assert "\n" not in str(caught.value)
