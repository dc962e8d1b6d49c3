"""In-place activations without the copy that autograd makes of their input. The same values and gradients.

Where a gradient needs what an activation overwrites, autograd copies that first: a pass over memory and a third of what
a training step of a mobile network holds.
"""

from typing import Any

import torch
from torch import Tensor, nn

_NOT_INPLACE = (nn.SiLU, nn.Hardswish, nn.Mish)  # their gradients need the input, the output is not enough


class _InplaceReLU6Function(torch.autograd.Function):
    """ReLU6 in place: the gradient is 0 where the output is 0 or 6, so that the output alone is saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clamp_(0, 6)
        ctx.mark_dirty(y)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad_x: Tensor = torch.ops.aten.hardtanh_backward(grads[0], *ctx.saved_tensors, 0, 6)
        return grad_x


class _InplaceReLU6(nn.ReLU6):
    """Only ever made by `avoid_activation_copies`."""

    def forward(self, input: Tensor) -> Tensor:
        y: Tensor = _InplaceReLU6Function.apply(input)
        return y


def avoid_activation_copies(network: nn.Module) -> None:
    """Of the in-place activations of the network, let ReLU6 save its output alone, and the others not be in place."""
    for module in network.modules():
        if type(module) is nn.ReLU6 and module.inplace:
            module.__class__ = _InplaceReLU6
        elif isinstance(module, _NOT_INPLACE):
            module.inplace = False
