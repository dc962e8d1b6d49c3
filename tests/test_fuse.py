"""A fused network gives what the network gives; what cannot be fused comes back as it was."""

import pytest
import timm
import torch
from torch import nn

from headstart import freeze
from headstart.compute import Compute, trial_pictures
from headstart.cut import cut
from headstart.fold import fold
from headstart.fuse import _Convolution, fuse

FP32, BF16 = (Compute(torch.device("cpu"), bf16=bf16) for bf16 in (False, True))
ONEDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def network(name: str, size: int) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = timm.create_model(name, num_classes=0)
    return FP32.place(fold(made.eval(), size)[0].requires_grad_(False))


def fused_convolutions(some: nn.Module) -> int:
    return sum(isinstance(module, _Convolution) for module in some.modules())


@pytest.mark.skipif(not ONEDNN, reason="this build of torch has no oneDNN")
@pytest.mark.parametrize("size", [64, 75])  # TensorFlow's padding differs between even and odd sides
@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "test_efficientnet", "test_resnet", "mobilenetv3_small_050", "resnetv2_18"]
)
def test_the_same_function(name: str, size: int) -> None:
    whole = network(name, size)
    fused = fuse(whole, FP32, trial_pictures(size))
    assert fused_convolutions(fused) == sum(isinstance(module, nn.Conv2d) for module in whole.modules())
    pictures = torch.randn(3, 3, size, size).contiguous(memory_format=torch.channels_last)
    expected, found = whole(pictures), fused(pictures)
    torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)


@pytest.mark.skipif(not ONEDNN, reason="this build of torch has no oneDNN")
def test_another_size_than_the_one_it_was_laid_out_for() -> None:
    whole = network("tf_efficientnet_lite0", 64)
    fused = fuse(whole, FP32, trial_pictures(64))
    for size, count in ((64, 5), (75, 1), (96, 2), (64, 2)):
        pictures = torch.randn(count, 3, size, size)
        torch.testing.assert_close(fused(pictures), whole(pictures), atol=1e-3, rtol=1e-2)


@pytest.mark.skipif(not ONEDNN, reason="this build of torch has no oneDNN")
def test_in_bf16_it_is_as_near_as_autocast() -> None:
    whole = network("tf_efficientnet_lite0", 64)
    fused = fuse(whole, BF16, trial_pictures(64))
    pictures = torch.randn(4, 3, 64, 64)
    exact = whole(pictures)
    with BF16.autocast():
        cast = (whole(pictures).float() - exact).abs().max()
    assert fused_convolutions(fused)
    assert (fused(pictures).float() - exact).abs().max() < 2 * cast + 1e-3


def test_the_network_itself_is_left_alone() -> None:
    whole = network("test_efficientnet", 64)
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    fuse(whole, BF16, trial_pictures(64))
    assert all(torch.equal(tensor, before[name]) for name, tensor in whole.state_dict().items())
    assert {tensor.dtype for tensor in whole.state_dict().values()} == {torch.float32}


def test_parts_of_a_cut_network_are_fused_too() -> None:
    trunk = network("test_efficientnet", 64)
    frozen = freeze.freeze(trunk, freeze.blocks(timm.create_model("test_efficientnet", num_classes=0)), 3)
    trunk.requires_grad_(False)
    parts = cut(trunk, frozen, 64)
    pictures = trial_pictures(64, 3)
    lower = fuse(parts.lower, FP32, pictures)
    upper = fuse(parts.upper, FP32, parts.lower(pictures))
    torch.testing.assert_close(upper(lower(pictures)), trunk(pictures), atol=1e-5, rtol=1e-4)
    if ONEDNN:
        assert fused_convolutions(lower)
        assert fused_convolutions(upper)


class Wayward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = self.conv(pictures)
        return x if x.sum() > 0 else -x


def test_what_cannot_be_traced_comes_back() -> None:
    wayward = Wayward().eval()
    assert fuse(wayward, FP32, trial_pictures(16)) is wayward


def test_another_result_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were torch's operator to change its meaning, the network as it is would be used."""
    whole = network("test_efficientnet", 64)
    forward = _Convolution.forward
    monkeypatch.setattr(_Convolution, "forward", lambda self, x: forward(self, x) * 1.01)
    assert fuse(whole, FP32, trial_pictures(64)) is whole
