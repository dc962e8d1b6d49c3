"""A frozen network on a CPU: convolution, bias and activation in one pass each, weights laid out once."""

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from headstart.compute import Compute
from headstart.cut import UNTRACEABLE, trace

# What oneDNN can do to a convolution's result on its way to memory: name, scalars, algorithm.
_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float], str]] = {
    nn.Identity: ("none", [], ""),
    nn.ReLU: ("relu", [], ""),
    nn.ReLU6: ("hardtanh", [0.0, 6.0], ""),
    nn.SiLU: ("swish", [], ""),
    nn.Hardswish: ("hardswish", [], ""),
}


def fuse(network: nn.Module, compute: Compute, *example: Tensor) -> nn.Module:
    """The same function for inference, its convolutions fused if it can be traced and runs on a CPU.

    Half as much again as fast as autocast (EfficientNet-Lite0, bf16, two cores), which converts every weight on every
    call and takes an activation as a pass of its own. The convolution is the one torch's own compiler lowers to
    (torch.ops.mkldnn). Where torch lacks it, or where it gives something else on `example` than the network does, the
    network itself comes back.

    Args:
        network: in eval mode, its batch norms folded, placed.
        compute: device and precision.
        example: what it takes, in fp32.
    """
    if compute.device.type != "cpu" or not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return network
    try:
        traced = network if isinstance(network, fx.GraphModule) else trace(network)
        found = _Fused(traced, compute.dtype)
        with torch.no_grad(), compute.autocast():
            pairs = list(zip(_tensors(network(*example)), _tensors(found(*example)), strict=True))
    except (*UNTRACEABLE, RuntimeError):  # or no oneDNN in this build of torch, or not for this processor
        return network
    tolerance = 3e-2 if compute.bf16 else 1e-4
    same = all(torch.allclose(one / _scale(one), other / _scale(one), atol=tolerance) for one, other in pairs)
    return found if same else network


def _tensors(value: Any) -> list[Tensor]:
    return [each.float() for each in (value if isinstance(value, tuple) else (value,))]


def _scale(value: Tensor) -> Tensor:
    return value.abs().max().clamp(min=1e-6)


class _Fused(nn.Module):
    def __init__(self, network: fx.GraphModule, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.network = copy.deepcopy(network)
        modules = dict(self.network.named_modules())
        for number, node in enumerate(list(self.network.graph.nodes)):
            conv = modules.get(str(node.target)) if node.op == "call_module" else None
            if isinstance(conv, nn.Conv2d) and conv.padding_mode == "zeros":
                ends = _followers(node, modules)
                activation = type(modules[str(ends[-1].target)]) if ends else nn.Identity
                node.target = f"fused_{number}"
                self.network.add_submodule(node.target, _Convolution(conv, activation, dtype))
                if ends:
                    ends[-1].replace_all_uses_with(node)
                for end in reversed(ends):
                    self.network.graph.erase_node(end)
        self.network.delete_all_unused_submodules()
        self.network.recompile()
        self.network.to(dtype)

    def forward(self, *inputs: Tensor) -> Any:
        with torch.autocast("cpu", enabled=False):
            return self.network(*(each.to(self.dtype) for each in inputs))


def _followers(node: fx.Node, modules: dict[str, nn.Module]) -> list[fx.Node]:
    """Modules that alone take the convolution's result, up to its activation."""
    found: list[fx.Node] = []
    last = node
    while len(last.users) == 1:
        (user,) = last.users
        kind = type(modules.get(str(user.target))) if user.op == "call_module" else None
        if kind not in _ACTIVATIONS:
            break
        found.append(user)
        last = user
        if kind is not nn.Identity:
            break
    return found


class _Convolution(nn.Module):
    """A convolution and what follows it; its weight is laid out at the first picture, for pictures of that size."""

    def __init__(self, conv: nn.Conv2d, activation: type[nn.Module], dtype: torch.dtype) -> None:
        super().__init__()
        self.stride, self.dilation, self.groups = list(conv.stride), list(conv.dilation), conv.groups
        self.activation = _ACTIVATIONS[activation]
        self.kernel, self.asked = conv.kernel_size, conv.padding
        self.same = type(conv).__name__ == "Conv2dSame" or conv.padding == "same"
        weight = conv.weight.detach().to(dtype)
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self.packed: tuple[tuple[int, ...], Tensor, list[int], list[int]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        if self.packed is None or self.packed[0] != tuple(x.shape):
            self.packed = self._pack(x)
        _, weight, padding, before = self.packed
        if any(before):
            x = F.pad(x, before)
        found: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, self.bias, padding, self.stride, self.dilation, self.groups, *self.activation
        )
        return found

    def _pack(self, x: Tensor) -> tuple[tuple[int, ...], Tensor, list[int], list[int]]:
        """Shape packed for, weight, padding on both sides, and padding that must be done before (left, right, ...)."""
        weight, before = self.weight, [0, 0, 0, 0]
        padding = [0, 0] if isinstance(self.asked, str) else [int(some) for some in self.asked]
        if self.same:
            sides = [self._sides(axis, x.shape[2 + axis]) for axis in (0, 1)]
            if all(right in (left, left + 1) for left, right in sides):
                # One more on the right: a first row or column of zeros in the kernel makes both sides equal.
                grown = [right - left for left, right in sides]
                weight = F.pad(weight, (grown[1], 0, grown[0], 0))
                padding = [right for _, right in sides]
            else:
                before, padding = [*sides[1], *sides[0]], [0, 0]
        seen = (x.shape[0], x.shape[1], x.shape[2] + before[2] + before[3], x.shape[3] + before[0] + before[1])
        weight = weight.contiguous(memory_format=torch.channels_last)
        packed = torch.ops.mkldnn._reorder_convolution_weight(
            weight, padding, self.stride, self.dilation, self.groups, list(seen)
        )
        return tuple(x.shape), packed, padding, before

    def _sides(self, axis: int, size: int) -> tuple[int, int]:
        """TensorFlow's padding `same`, left and right: as much as makes the output size / stride, rounded up."""
        stride, span = self.stride[axis], self.dilation[axis] * (self.kernel[axis] - 1) + 1
        total = max((-(-size // stride) - 1) * stride + span - size, 0)
        return total // 2, total - total // 2
