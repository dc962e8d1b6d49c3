"""Inference on a CPU: convolution, bias and activation fused into one oneDNN call, weights packed once."""

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from headstart.engine.cpu.same_padding import same_padding_sides
from headstart.engine.device import Compute
from headstart.engine.equivalence import outputs_agree
from headstart.engine.trace import TRACE_ERRORS, trace_layers

# Post-ops that oneDNN applies to a convolution's output before it is written: name, scalars, algorithm.
_ONEDNN_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float], str]] = {
    nn.Identity: ("none", [], ""),
    nn.ReLU: ("relu", [], ""),
    nn.ReLU6: ("hardtanh", [0.0, 6.0], ""),
    nn.SiLU: ("swish", [], ""),
    nn.Hardswish: ("hardswish", [], ""),
}


def fuse_convolutions(network: nn.Module, compute: Compute, *example: Tensor) -> nn.Module:
    """The same function for inference, its convolutions fused if it can be traced and runs on a CPU.

    1.5 times as fast as autocast (EfficientNet-Lite0, bf16, two cores), which converts every weight on every call and
    makes a pass over memory for each activation. The operator is the one that torch's own compiler emits
    (torch.ops.mkldnn). Where torch lacks it, or where its outputs on `example` differ from the network's, the network
    itself is returned.

    Args:
        network: in eval mode, its batch norms folded, on the device.
        compute: device and precision.
        example: inputs of the network, in fp32.
    """
    if compute.device.type != "cpu" or not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return network
    tolerance = 1e-4 if compute.dtype == torch.float32 else 3e-2
    try:
        traced = network if isinstance(network, fx.GraphModule) else trace_layers(network)
        fused = _FusedNetwork(traced, compute.dtype)
        with torch.no_grad(), compute.autocast():
            expected, outputs = network(*example), fused(*example)
        agree = outputs_agree(expected, outputs, tolerance)
    except (*TRACE_ERRORS, RuntimeError):  # or no oneDNN in this build of torch, or not for this processor
        return network
    return fused if agree else network


class _FusedNetwork(nn.Module):
    def __init__(self, network: fx.GraphModule, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.network = copy.deepcopy(network)
        modules = dict(self.network.named_modules())
        for number, node in enumerate(list(self.network.graph.nodes)):
            conv = modules.get(str(node.target)) if node.op == "call_module" else None
            if isinstance(conv, nn.Conv2d) and conv.padding_mode == "zeros":
                followers = _fusable_followers(node, modules)
                activation = type(modules[str(followers[-1].target)]) if followers else nn.Identity
                node.target = f"fused_{number}"
                self.network.add_submodule(node.target, _FusedConv2d(conv, activation, dtype))
                if followers:
                    followers[-1].replace_all_uses_with(node)
                for follower in reversed(followers):
                    self.network.graph.erase_node(follower)
        self.network.delete_all_unused_submodules()
        self.network.recompile()
        self.network.to(dtype)

    def forward(self, *inputs: Tensor) -> Any:
        with torch.autocast("cpu", enabled=False):
            return self.network(*(tensor.to(self.dtype) for tensor in inputs))


def _fusable_followers(node: fx.Node, modules: dict[str, nn.Module]) -> list[fx.Node]:
    """Nodes that alone use the convolution's output: identities, up to and including its activation."""
    followers: list[fx.Node] = []
    last = node
    while len(last.users) == 1:
        (user,) = last.users
        kind = type(modules.get(str(user.target))) if user.op == "call_module" else None
        if kind not in _ONEDNN_ACTIVATIONS:
            break
        followers.append(user)
        last = user
        if kind is not nn.Identity:
            break
    return followers


class _FusedConv2d(nn.Module):
    """A convolution and its activation; the weight is packed at the first call, for inputs of that shape."""

    def __init__(self, conv: nn.Conv2d, activation: type[nn.Module], dtype: torch.dtype) -> None:
        super().__init__()
        self.stride, self.dilation, self.groups = list(conv.stride), list(conv.dilation), conv.groups
        self.activation = _ONEDNN_ACTIVATIONS[activation]
        self.kernel, self.requested_padding = conv.kernel_size, conv.padding
        self.same_padding = (
            type(conv).__name__ == "Conv2dSame"  # timm's
            or getattr(conv, "same_padding", False)  # the same after use_fast_depthwise
            or conv.padding == "same"
        )
        weight = conv.weight.detach().to(dtype)
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self.packed: tuple[tuple[int, ...], Tensor, list[int], list[int]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        if self.packed is None or self.packed[0] != tuple(x.shape):
            self.packed = self._pack_weight(x)
        _, weight, padding, extra = self.packed
        if any(extra):
            x = F.pad(x, extra)
        y: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, self.bias, padding, self.stride, self.dilation, self.groups, *self.activation
        )
        return y

    def _pack_weight(self, x: Tensor) -> tuple[tuple[int, ...], Tensor, list[int], list[int]]:
        """Shape packed for, weight, padding of both sides, and zeros to add before (left, right, above, below)."""
        weight, extra = self.weight, [0, 0, 0, 0]
        padding = [0, 0] if isinstance(self.requested_padding, str) else [int(side) for side in self.requested_padding]
        if self.same_padding:
            axes = zip(x.shape[2:], self.kernel, self.stride, self.dilation, strict=True)
            sides = [same_padding_sides(*axis) for axis in axes]
            if all(after in (before, before + 1) for before, after in sides):
                # One more zero after: a first row or column of zeros in the kernel makes both sides equal.
                added = [after - before for before, after in sides]
                weight = F.pad(weight, (added[1], 0, added[0], 0))
                padding = [after for _, after in sides]
            else:
                extra, padding = [*sides[1], *sides[0]], [0, 0]
        shape = (x.shape[0], x.shape[1], x.shape[2] + extra[2] + extra[3], x.shape[3] + extra[0] + extra[1])
        weight = weight.contiguous(memory_format=torch.channels_last)
        packed = torch.ops.mkldnn._reorder_convolution_weight(
            weight, padding, self.stride, self.dilation, self.groups, list(shape)
        )
        return tuple(x.shape), packed, padding, extra
