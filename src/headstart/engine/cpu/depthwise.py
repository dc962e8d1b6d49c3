"""Depthwise convolutions whose gradients use oneDNN's fast kernels only. The same function and gradients."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.engine.cpu.same_padding import same_padding_sides


class _DepthwiseFunction(torch.autograd.Function):
    """Depthwise convolution with gradients by oneDNN's fast kernels only.

    Two of its kernels for these gradients are reference loops, 10 to 100 times slower than the rest: the weight's
    gradient where the kernel is wider than 3, and the input's in bf16 with a stride. The columns of a kernel's
    gradient are independent sums, so a 5x5 one is computed as two 5x3 ones, the input shifted to their first column;
    and both are computed in fp32, which costs a conversion and gains precision.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: int,
        padding: tuple[int, int],
        extra: tuple[int, int, int, int],
    ) -> Tensor:
        """`extra`: zeros left, right, above and below, besides `padding`."""
        left, right, above, below = ctx.extra = extra
        height, width = x.shape[2:]
        x = x.contiguous(memory_format=torch.channels_last)
        x = _zero_pad(x, left, above, width + left + right, height + above + below) if any(extra) else x
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride=stride, padding=padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        grad_fp32 = grad.float()
        grad_x = grad_weight = grad_bias = None
        if need_x:
            if ctx.stride == 1:
                grad_y, like, kernel = grad, x, weight
            else:
                like = torch.empty_like(x, dtype=torch.float32)  # only its shape matters for this gradient
                grad_y, kernel = grad_fp32, weight.float()
            padded = _conv_backward(grad_y, like, kernel, ctx.stride, ctx.padding, (True, False))[0]
            left, right, above, below = ctx.extra
            grad_x = padded[..., above : padded.shape[2] - below, left : padded.shape[3] - right].to(x.dtype)
        if need_weight:
            grad_weight = _weight_gradient(grad_fp32, x, weight.float(), ctx.stride, ctx.padding).to(weight.dtype)
        if need_bias:
            grad_bias = grad_fp32.sum((0, 2, 3)).to(weight.dtype)
        return grad_x, grad_weight, grad_bias, None, None, None


def _zero_pad(x: Tensor, left: int, above: int, width: int, height: int, dtype: torch.dtype | None = None) -> Tensor:
    """`x` (n, c, h, w) padded with zeros to (n, c, height, width); each byte is written once."""
    size = (*x.shape[:2], height, width)
    padded = torch.empty(size, dtype=dtype or x.dtype, device=x.device, memory_format=torch.channels_last)
    bottom, right = above + x.shape[2], left + x.shape[3]
    for border in (padded[:, :, :above], padded[:, :, bottom:], padded[..., :left], padded[..., right:]):
        if border.numel():
            border.zero_()
    padded[:, :, above:bottom, left:right] = x
    return padded


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int]) -> Tensor:
    """The weight's gradient in fp32, three columns of the kernel at a time; `x` may be bf16."""
    pad_y, pad_x = padding
    kernel_width, x_width = weight.shape[-1], x.shape[-1]
    columns = []
    for first in range(0, kernel_width, 3):
        begin = max(0, min(first, kernel_width - 3))  # the last group of three may overlap the one before
        part = weight[..., begin : begin + 3].contiguous()
        span = (grad.shape[-1] - 1) * stride + part.shape[-1]
        left, right = max(0, begin - pad_x), min(x_width, begin - pad_x + span)  # columns of x under this part
        shifted = _zero_pad(x[..., left:right], left - (begin - pad_x), 0, span, x.shape[2], torch.float32)
        columns.append(_conv_backward(grad, shifted, part, stride, (pad_y, 0), (False, True))[1][..., first - begin :])
    return torch.cat(columns, -1)


def _conv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], mask: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of input and weight; `mask`: which of them are computed."""
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, padding, [1, 1], False, [0, 0], len(weight), [*mask, False]
    )
    return grad_x, grad_weight


class _FastDepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution with the fast gradients. Only ever made by `use_fast_depthwise`."""

    same_padding: bool

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            x, weight = x.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        padding = (int(self.padding[0]), int(self.padding[1]))
        extra = (0, 0, 0, 0)
        if self.same_padding:
            axes = zip(x.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True)
            (above, below), (left, right) = (same_padding_sides(*axis) for axis in axes)
            padding, extra = (0, 0), (left, right, above, below)
        y: Tensor = _DepthwiseFunction.apply(x, weight, bias, self.stride[0], padding, extra)
        return y


def use_fast_depthwise(network: nn.Module) -> None:
    """Give every depthwise convolution of the network, in place, the fast gradients. Names of tensors stay."""
    from timm.layers.conv2d_same import Conv2dSame

    for module in network.modules():
        if type(module) in (nn.Conv2d, Conv2dSame) and isinstance(module, nn.Conv2d) and _is_supported(module):
            same = isinstance(module, Conv2dSame)
            module.__class__ = _FastDepthwiseConv2d
            assert isinstance(module, _FastDepthwiseConv2d)
            module.same_padding = same


def _is_supported(conv: nn.Conv2d) -> bool:
    """Depthwise, padded with zeros, not dilated, one stride for both axes."""
    depthwise = conv.groups > 1 and conv.groups == conv.in_channels == conv.out_channels
    plain = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return depthwise and plain and conv.dilation == (1, 1) and conv.stride[0] == conv.stride[1]
