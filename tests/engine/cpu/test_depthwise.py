"""The fast gradients of depthwise convolutions equal torch's own."""

from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from headstart.engine.cpu.depthwise import _FastDepthwiseConv2d, use_fast_depthwise

CHANNELS = 6


def gradients(conv: nn.Module, x: Tensor, bf16: bool = False) -> list[Tensor]:
    """The output and the gradients of the input, the weight and, where there is one, the bias."""
    x = x.clone().requires_grad_()
    conv.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        y = conv(x)
    # A different weight for each place of the output: a sum alone would hide a shift.
    torch.autograd.backward((y.float() * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum())
    found = [y.detach(), x.grad, *(parameter.grad for parameter in conv.parameters())]
    return [tensor for tensor in found if tensor is not None]


def check(layer: Any, size: tuple[int, int], bf16: bool = False, **options: Any) -> None:
    torch.manual_seed(1)
    conv = layer(CHANNELS, CHANNELS, groups=CHANNELS, **options)
    x = torch.randn(2, CHANNELS, *size)
    expected = gradients(conv, x)
    use_fast_depthwise(conv)
    assert isinstance(conv, _FastDepthwiseConv2d)
    found = gradients(conv, x, bf16)
    assert len(found) == len(expected)
    for name, one, other in zip(("output", "input", "weight", "bias"), found, expected, strict=False):
        scale = other.abs().max()
        assert one.shape == other.shape
        assert (one.float() - other).abs().max() <= (0.02 if bf16 else 2e-6) * scale, name


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 7, 9])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", ["same", "symmetric", "none"])
def test_gradients_are_torchs_own(kernel: int, stride: int, padding: str) -> None:
    for size in ((11, 11), (12, 9)):
        if padding == "same":
            check(Conv2dSame, size, kernel_size=kernel, stride=stride, bias=kernel == 3)
        else:
            zeros = kernel // 2 if padding == "symmetric" else 0
            check(nn.Conv2d, size, kernel_size=kernel, stride=stride, padding=zeros, bias=kernel == 5)


@given(
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.integers(1, 3),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.integers(7, 16), st.integers(7, 16)),
    st.booleans(),
)
@settings(max_examples=40)
def test_gradients_of_any_shape(
    kernel: tuple[int, int], stride: int, padding: tuple[int, int], size: tuple[int, int], bias: bool
) -> None:
    check(nn.Conv2d, size, kernel_size=kernel, stride=stride, padding=padding, bias=bias)


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_bf16_is_close(kernel: int, stride: int) -> None:
    check(Conv2dSame, (12, 12), bf16=True, kernel_size=kernel, stride=stride, bias=True)
    check(nn.Conv2d, (12, 12), bf16=True, kernel_size=kernel, stride=stride, padding=kernel // 2)


def test_a_frozen_weight_or_input_has_no_gradient() -> None:
    conv = nn.Conv2d(4, 4, 5, padding=2, groups=4)
    use_fast_depthwise(conv)
    conv.weight.requires_grad_(False)
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    torch.autograd.backward(conv(x).sum())
    assert conv.weight.grad is None
    assert x.grad is not None
    assert conv.bias is not None
    assert conv.bias.grad is not None


@pytest.mark.parametrize(
    "options",
    [
        {"groups": 1},
        {"groups": 2},
        {"groups": 4, "dilation": 2},
        {"groups": 4, "padding_mode": "circular", "padding": 1},
        {"groups": 4, "padding": "same"},
        {"groups": 4, "stride": (1, 2)},
    ],
)
def test_other_convolutions_are_unchanged(options: dict[str, Any]) -> None:
    conv = nn.Conv2d(4, 4, 3, **options)
    use_fast_depthwise(conv)
    assert type(conv) is nn.Conv2d


def test_a_depthwise_convolution_with_a_channel_multiplier_is_unchanged() -> None:
    conv = nn.Conv2d(4, 8, 3, groups=4)
    use_fast_depthwise(conv)
    assert type(conv) is nn.Conv2d


@pytest.mark.parametrize("name", ["test_efficientnet", "tf_efficientnet_lite0", "test_byobnet"])
def test_a_whole_network_keeps_its_names_and_its_gradients(name: str) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=3).eval()
    x = torch.randn(2, 3, 32, 32)
    expected, names = gradients(network, x), list(network.state_dict())
    use_fast_depthwise(network)
    assert name == "test_byobnet" or any(isinstance(module, _FastDepthwiseConv2d) for module in network.modules())
    assert list(network.state_dict()) == names
    for one, other in zip(gradients(network, x), expected, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5 * float(other.abs().max()) + 1e-9, rtol=1e-3)
