"""A network as a graph of its layers (torch.fx); what timm marks as untraceable stays one node."""

import inspect
from typing import Any

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

TRACE_ERRORS = (fx.proxy.TraceError, TypeError, ValueError, NotImplementedError)  # of a network that cannot be traced


def trace_layers(network: nn.Module) -> fx.GraphModule:
    """The network as a graph whose nodes are its layers.

    Raises:
        one of TRACE_ERRORS: its control flow depends on the picture, say.
    """
    return fx.GraphModule(network, _LayerTracer().trace(network, _default_arguments(network)))


class _LayerTracer(fx.Tracer):
    """Layers are leaves, and so is what timm marks as untraceable."""

    def __init__(self) -> None:
        from timm.models import get_notrace_functions

        super().__init__(autowrap_functions=tuple(get_notrace_functions()))  # type: ignore[no-untyped-call]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        from timm.models import is_notrace_module

        return not list(m.children()) or isinstance(m, _BatchNorm) or is_notrace_module(type(m))


def _default_arguments(network: nn.Module) -> dict[str, Any]:
    """Arguments of `forward` after the picture (an attention mask, say), at their defaults: they are not traced."""
    _, *others = inspect.signature(network.forward).parameters.values()
    return {other.name: other.default for other in others if other.default is not inspect.Parameter.empty}
