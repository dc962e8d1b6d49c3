"""Depthwise convolutions that train as fast as a CPU allows. Nothing here changes what is computed."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _DepthwiseFunction(torch.autograd.Function):
    """Depthwise convolution with gradients by oneDNN's fast kernels only.

    Two of its kernels for these gradients are reference loops, 10 to 100 times slower than the rest: that of the
    weight when the kernel is wider than 3, and that of the input in bf16 with a stride. The columns of a kernel's
    gradient are independent sums, so a 5x5 one is taken as two 5x3 ones, the input shifted to their first column;
    and both are taken in fp32, which costs a conversion and gains precision.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: int,
        padding: tuple[int, int],
        frame: tuple[int, int, int, int],
    ) -> Tensor:
        """`frame`: zeros left, right, above and below, besides `padding`."""
        left, right, above, below = ctx.frame = frame
        height, width = x.shape[2:]
        x = x.contiguous(memory_format=torch.channels_last)
        x = _on_zeros(x, left, above, width + left + right, height + above + below) if any(frame) else x
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride=stride, padding=padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        wide = grad.float()
        grad_x = grad_weight = grad_bias = None
        if need_x:
            if ctx.stride == 1:
                out, like, kernel = grad, x, weight
            else:
                like = torch.empty_like(x, dtype=torch.float32)  # its values have no say in this gradient
                out, kernel = wide, weight.float()
            whole = _gradients(out, like, kernel, ctx.stride, ctx.padding, (True, False))[0]
            left, right, above, below = ctx.frame
            grad_x = whole[..., above : whole.shape[2] - below, left : whole.shape[3] - right].to(x.dtype)
        if need_weight:
            grad_weight = _weight_gradient(wide, x, weight.float(), ctx.stride, ctx.padding).to(weight.dtype)
        if need_bias:
            grad_bias = wide.sum((0, 2, 3)).to(weight.dtype)
        return grad_x, grad_weight, grad_bias, None, None, None


def _on_zeros(x: Tensor, left: int, above: int, width: int, height: int, dtype: torch.dtype | None = None) -> Tensor:
    """`x` (n, c, h, w) on a larger ground of zeros; each byte is written once."""
    size = (*x.shape[:2], height, width)
    ground = torch.empty(size, dtype=dtype or x.dtype, device=x.device, memory_format=torch.channels_last)
    bottom, right = above + x.shape[2], left + x.shape[3]
    for strip in (ground[:, :, :above], ground[:, :, bottom:], ground[..., :left], ground[..., right:]):
        if strip.numel():
            strip.zero_()
    ground[:, :, above:bottom, left:right] = x
    return ground


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int]) -> Tensor:
    """The kernel's gradient in fp32, three columns at a time; `x` may be bf16."""
    high, wide = padding
    width, seen = weight.shape[-1], x.shape[-1]
    columns = []
    for first in range(0, width, 3):
        begin = max(0, min(first, width - 3))  # the last group of three may overlap the one before
        part = weight[..., begin : begin + 3].contiguous()
        span = (grad.shape[-1] - 1) * stride + part.shape[-1]
        left, right = max(0, begin - wide), min(seen, begin - wide + span)  # columns of x under this part
        shifted = _on_zeros(x[..., left:right], left - (begin - wide), 0, span, x.shape[2], torch.float32)
        columns.append(_gradients(grad, shifted, part, stride, (high, 0), (False, True))[1][..., first - begin :])
    return torch.cat(columns, -1)


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], mask: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, padding, [1, 1], False, [0, 0], len(weight), [*mask, False]
    )
    return grad_x, grad_weight


class _Depthwise(nn.Conv2d):
    """A depthwise convolution with the quick gradients. Only ever made by `quick_depthwise`."""

    same_padding: bool

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled("cpu"):
            kind = torch.get_autocast_dtype("cpu")
            x, weight = x.to(kind), weight.to(kind)
            bias = None if bias is None else bias.to(kind)
        padding = (int(self.padding[0]), int(self.padding[1]))
        frame = (0, 0, 0, 0)
        if self.same_padding:
            from timm.layers.padding import get_same_padding

            sides = zip(x.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True)
            high, wide = (get_same_padding(*side) for side in sides)
            padding, frame = (0, 0), (wide // 2, wide - wide // 2, high // 2, high - high // 2)
        y: Tensor = _DepthwiseFunction.apply(x, weight, bias, self.stride[0], padding, frame)
        return y


def quick_depthwise(network: nn.Module) -> None:
    """Give every depthwise convolution of the network, in place, the quick gradients. Names stay as they are."""
    from timm.layers.conv2d_same import Conv2dSame

    for module in network.modules():
        if type(module) in (nn.Conv2d, Conv2dSame) and isinstance(module, nn.Conv2d) and _fits(module):
            same = isinstance(module, Conv2dSame)
            module.__class__ = _Depthwise
            assert isinstance(module, _Depthwise)
            module.same_padding = same


def _fits(conv: nn.Conv2d) -> bool:
    """Depthwise, with zeros around, nothing dilated and one stride for both sides."""
    depthwise = conv.groups > 1 and conv.groups == conv.in_channels == conv.out_channels
    plain = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return depthwise and plain and conv.dilation == (1, 1) and conv.stride[0] == conv.stride[1]
