"""Activations in place, without the copy that torch makes there. Nothing here changes what is computed.

Where a gradient needs what an activation overwrites, autograd copies that first: a pass over memory and a third of what
a training step of a mobile network holds.
"""

from typing import Any

import torch
from torch import Tensor, nn

_OTHERS = (nn.SiLU, nn.Hardswish, nn.Mish)  # whose results do not tell the gradient


class _Relu6Function(torch.autograd.Function):
    """ReLU6 in place: where the result is 0 or 6 the gradient stops, so that the result alone is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clamp_(0, 6)
        ctx.mark_dirty(y)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        found: Tensor = torch.ops.aten.hardtanh_backward(grads[0], *ctx.saved_tensors, 0, 6)
        return found


class _Relu6(nn.ReLU6):
    """Only ever made by `no_copies`."""

    def forward(self, input: Tensor) -> Tensor:
        y: Tensor = _Relu6Function.apply(input)
        return y


def no_copies(network: nn.Module) -> None:
    """Change the activations that work in place, in place: ReLU6 keeps its result alone, the others write anew."""
    for module in network.modules():
        if type(module) is nn.ReLU6 and module.inplace:
            module.__class__ = _Relu6
        elif isinstance(module, _OTHERS):
            module.inplace = False
