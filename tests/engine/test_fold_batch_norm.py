"""Folding batch norm changes no network's function, and unfolding gives a file that plain timm reads."""

import copy

import pytest
import timm
import torch
from torch import Tensor, nn

from headstart.engine.fold_batch_norm import fold_batch_norm, unfold_batch_norm
from headstart.models.freeze import freeze_blocks, list_blocks

SIZE = 64


def trained(name: str) -> nn.Module:
    """A network whose batch norms have been in training: statistics and weights that are not 0 and 1."""
    torch.manual_seed(1)
    network: nn.Module = timm.create_model(name, num_classes=0).train()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
        for _ in range(5):
            network(torch.rand(8, 3, SIZE, SIZE) * 2)
    return network.eval()


def pictures(seed: int = 5, count: int = 3) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def close(one: Tensor, other: Tensor, tolerance: float = 1e-4) -> bool:
    return bool((one - other).abs().max() <= tolerance * other.abs().max())


@pytest.mark.parametrize(
    ("name", "pairs"), [("test_efficientnet", 13), ("test_byobnet", 14), ("test_resnet", 14), ("resnet10t", 13)]
)
def test_the_folded_network_is_the_same_function(name: str, pairs: int) -> None:
    network = trained(name)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with torch.no_grad():
        expected = network(pictures())
        folded, found = fold_batch_norm(network, SIZE)
        assert close(folded(pictures()), expected)
    assert len(found) == pairs
    assert norms(network) - norms(folded) == pairs
    assert all(torch.equal(network.state_dict()[key], tensor) for key, tensor in before.items()), "a copy was folded"


@pytest.mark.parametrize(("name", "size"), [("test_vit", 160), ("test_convnext", SIZE), ("test_nfnet", SIZE)])
def test_networks_without_batch_norm_are_returned(name: str, size: int) -> None:
    network: nn.Module = timm.create_model(name, num_classes=0)
    folded, pairs = fold_batch_norm(network, size)
    assert folded is network
    assert pairs == []


class NormFirst(nn.Module):
    """Norm before convolution: the convolution's outputs are added up before any batch norm sees them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.conv1(self.norm1(x).relu())
        x = x + self.conv2(self.norm2(y + x).relu())
        return x.mean((2, 3))


@pytest.mark.parametrize("passes", [0, 5])
def test_where_the_order_of_modules_misleads_the_backbone_is_returned(passes: int) -> None:
    torch.manual_seed(0)
    network = NormFirst().train()  # without a forward pass its batch norms are identities, and hide the mistake
    for _ in range(passes):
        network(torch.rand(8, 3, SIZE, SIZE) * 2)
    folded, pairs = fold_batch_norm(network, SIZE)
    assert folded is network
    assert pairs == []
    assert norms(network) == 2


@pytest.mark.parametrize("name", ["resnetv2_18", "densenet121"])
def test_pre_activation_networks_compute_the_same(name: str) -> None:
    network = trained(name)
    with torch.no_grad():
        expected = network(pictures())
        folded, _ = fold_batch_norm(network, SIZE)
        assert close(folded(pictures()), expected)


def train_step(folded: nn.Module, frozen: set[str]) -> nn.Module:
    """Change every parameter that is not frozen, in place."""
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in folded.named_parameters():
            if name not in frozen:
                parameter.add_((0.1 * parameter.abs().mean() + 0.02) * torch.randn(parameter.shape))
    return folded


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_byobnet", "resnet10t"])
@pytest.mark.parametrize("depth", [0, 2, -1])
def test_unfolded_tensors_make_plain_timm_compute_what_the_folded_network_does(name: str, depth: int) -> None:
    network = trained(name)
    original = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    blocks = list_blocks(network)
    depth = len(blocks) if depth == -1 else depth
    folded, pairs = fold_batch_norm(network, SIZE)
    frozen = freeze_blocks(folded, blocks, depth)
    train_step(folded, frozen)
    tensors = unfold_batch_norm(folded.state_dict(), pairs, original, frozen)
    plain: nn.Module = timm.create_model(name, num_classes=0)
    plain.load_state_dict(tensors, strict=True)
    with torch.no_grad():
        assert close(plain.eval()(pictures()), folded(pictures()))
    assert list(tensors) == list(original)
    unchanged = {key for key in original if torch.equal(tensors[key], original[key])}
    assert {key for block in blocks[:depth] for key in block.parameters} <= unchanged
    if depth == len(blocks):
        assert unchanged == set(original), "all is frozen: all is as it was, batch norm too"
    weights = {key for block in blocks[depth:] for key in block.parameters if original[key].ndim > 1}
    assert not weights & unchanged


def test_unfolding_without_training_is_the_same_function_again() -> None:
    network = trained("test_efficientnet")
    folded, pairs = fold_batch_norm(network, SIZE)
    tensors = unfold_batch_norm(folded.state_dict(), pairs, network.state_dict(), set())
    plain = copy.deepcopy(network)
    plain.load_state_dict(tensors)
    with torch.no_grad():
        assert close(plain(pictures()), network(pictures()))
    again, found = fold_batch_norm(plain, SIZE)
    assert found == pairs
    with torch.no_grad():
        assert close(again(pictures()), network(pictures()))
