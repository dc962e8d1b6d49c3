"""A fused network computes what the network computes; one that cannot be fused is returned as it is."""

import pytest
import timm
import torch
from torch import nn

from headstart.engine.cpu.fuse_convolutions import _FusedConv2d, fuse_convolutions
from headstart.engine.device import Compute, computes_bf16
from headstart.engine.equivalence import example_input
from headstart.engine.fold_batch_norm import fold_batch_norm
from headstart.features.split_network import split_network
from headstart.models.freeze import freeze_blocks, list_blocks

FP32, BF16 = (Compute(torch.device("cpu"), torch.bfloat16 if bf16 else torch.float32) for bf16 in (False, True))
ONEDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def build(name: str, size: int) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = timm.create_model(name, num_classes=0)
    return FP32.to_device(fold_batch_norm(network.eval(), size)[0].requires_grad_(False))


def fused_convolutions(network: nn.Module) -> int:
    return sum(isinstance(module, _FusedConv2d) for module in network.modules())


@pytest.mark.skipif(not ONEDNN, reason="this build of torch has no oneDNN")
@pytest.mark.parametrize("size", [64, 75])  # TensorFlow's padding differs between even and odd sides
@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "test_efficientnet", "test_resnet", "mobilenetv3_small_050", "resnetv2_18"]
)
def test_the_same_function(name: str, size: int) -> None:
    network = build(name, size)
    fused = fuse_convolutions(network, FP32, example_input(size))
    assert fused_convolutions(fused) == sum(isinstance(module, nn.Conv2d) for module in network.modules())
    pictures = torch.randn(3, 3, size, size).contiguous(memory_format=torch.channels_last)
    expected, outputs = network(pictures), fused(pictures)
    torch.testing.assert_close(outputs, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)


@pytest.mark.skipif(not ONEDNN, reason="this build of torch has no oneDNN")
def test_other_sizes_than_the_one_its_weights_were_packed_for() -> None:
    network = build("tf_efficientnet_lite0", 64)
    fused = fuse_convolutions(network, FP32, example_input(64))
    for size, count in ((64, 5), (75, 1), (96, 2), (64, 2)):
        pictures = torch.randn(count, 3, size, size)
        torch.testing.assert_close(fused(pictures), network(pictures), atol=1e-3, rtol=1e-2)


@pytest.mark.skipif(not computes_bf16(torch.device("cpu")), reason="oneDNN does not compute in bf16 on this processor")
def test_in_bf16_it_is_as_near_as_autocast() -> None:
    network = build("tf_efficientnet_lite0", 64)
    fused = fuse_convolutions(network, BF16, example_input(64))
    pictures = torch.randn(4, 3, 64, 64)
    exact = network(pictures)
    with BF16.autocast():
        autocast_error = (network(pictures).float() - exact).abs().max()
    assert fused_convolutions(fused)
    assert (fused(pictures).float() - exact).abs().max() < 2 * autocast_error + 1e-3


def test_the_network_itself_is_unchanged() -> None:
    network = build("test_efficientnet", 64)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fuse_convolutions(network, BF16, example_input(64))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float32}


def test_parts_of_a_split_network_are_fused_too() -> None:
    backbone = build("test_efficientnet", 64)
    frozen = freeze_blocks(backbone, list_blocks(timm.create_model("test_efficientnet", num_classes=0)), 3)
    backbone.requires_grad_(False)
    parts = split_network(backbone, frozen, 64)
    pictures = example_input(64, 3)
    lower = fuse_convolutions(parts.lower, FP32, pictures)
    upper = fuse_convolutions(parts.upper, FP32, parts.lower(pictures))
    torch.testing.assert_close(upper(lower(pictures)), backbone(pictures), atol=1e-5, rtol=1e-4)
    if ONEDNN:
        assert fused_convolutions(lower)
        assert fused_convolutions(upper)


class DataDependent(nn.Module):
    """Control flow that depends on the picture cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = self.conv(pictures)
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_traced_is_returned() -> None:
    network = DataDependent().eval()
    assert fuse_convolutions(network, FP32, example_input(16)) is network


def test_other_outputs_are_not_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were torch's operator to change its meaning, the network as it is would be used."""
    network = build("test_efficientnet", 64)
    forward = _FusedConv2d.forward
    monkeypatch.setattr(_FusedConv2d, "forward", lambda self, x: forward(self, x) * 1.01)
    assert fuse_convolutions(network, FP32, example_input(64)) is network
