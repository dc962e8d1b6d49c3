"""A network cut where its frozen part ends: what lies below is run once a picture, what lies above every epoch."""

import inspect
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from headstart.compute import trial_pictures
from headstart.errors import UserError

UNTRACEABLE = (fx.proxy.TraceError, TypeError, ValueError, NotImplementedError)


@dataclass(frozen=True)
class Cut:
    """`upper(lower(pictures))` is `trunk(pictures)`; between the two lies one row of activations a picture.

    Both share their modules with the trunk they were cut from.
    """

    lower: nn.Module  # pictures (n, 3, s, s) -> rows (n, width)
    upper: nn.Module  # rows (n, width) -> what the trunk gives
    width: int


def cut(trunk: nn.Module, frozen: Collection[str], size: int) -> Cut:
    """Cut a trunk below the first parameter that trains.

    The trunk is traced (torch.fx); everything that comes from the picture and frozen parameters alone is the lower
    part. Proven on two random pictures: both parts together give what the trunk gives.

    Args:
        trunk: any timm network, on the CPU.
        frozen: names of its frozen parameters.
        size: pictures' side, in pixels.

    Raises:
        UserError: this network cannot be traced, or nothing of it is frozen.
    """
    trunk = trunk.eval()
    pictures = trial_pictures(size)
    try:
        graph = trace(trunk).graph
        below = _below(graph, trunk, frozen)
        shapes = _shapes(graph, trunk, below, pictures)
        lower = _Lower(fx.GraphModule(trunk, _lower_graph(graph, list(shapes))), list(shapes.values()))
        upper = _Upper(fx.GraphModule(trunk, _upper_graph(graph, below, list(shapes))), list(shapes.values()))
        with torch.no_grad():
            same = torch.allclose(upper(lower(pictures)), trunk(pictures), atol=1e-4, rtol=1e-4)
    except (*UNTRACEABLE, RuntimeError) as error:
        raise _cannot(trunk, str(error).partition("\n")[0]) from None
    if not same:
        raise _cannot(trunk, "its parts together give something else than the whole")
    return Cut(lower, upper, sum(math.prod(shape) for shape in shapes.values()))


def trace(network: nn.Module) -> fx.GraphModule:
    """The network as a graph of its layers.

    Raises:
        one of UNTRACEABLE: its way depends on the picture, say.
    """
    return fx.GraphModule(network, _Tracer().trace(network, _defaults(network)))


def _cannot(trunk: nn.Module, why: str) -> UserError:
    return UserError(
        f"params.yaml: fine_tune.cache_frozen: true: {type(trunk).__name__} cannot be cut at freeze_depth ({why}); "
        "give false"
    )


class _Tracer(fx.Tracer):
    """Layers are leaves, and so is whatever timm marks as not traceable."""

    def __init__(self) -> None:
        from timm.models import get_notrace_functions

        super().__init__(autowrap_functions=tuple(get_notrace_functions()))  # type: ignore[no-untyped-call]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        from timm.models import is_notrace_module

        return not list(m.children()) or isinstance(m, _BatchNorm) or is_notrace_module(type(m))


def _defaults(trunk: nn.Module) -> dict[str, Any]:
    """What forward takes besides the picture (an attention mask, say) stays as it is when nobody gives it."""
    _, *others = inspect.signature(trunk.forward).parameters.values()
    return {other.name: other.default for other in others if other.default is not inspect.Parameter.empty}


def _below(graph: fx.Graph, trunk: nn.Module, frozen: Collection[str]) -> set[fx.Node]:
    """Nodes that depend on the picture and on no parameter that trains."""
    names = [name for name, _ in trunk.named_parameters()]
    moving = {name for name in names if name not in frozen}
    above: set[fx.Node] = set()
    below: set[fx.Node] = set()
    for node in graph.nodes:
        target = str(node.target)
        own = {target} if node.op == "get_attr" else {n for n in names if n.startswith(f"{target}.")}
        trains = node.op in ("get_attr", "call_module") and bool(own & moving)
        if node.op == "output" or trains or any(source in above for source in node.all_input_nodes):
            above.add(node)
        elif node.op == "placeholder" or any(source in below for source in node.all_input_nodes):
            below.add(node)
    return below


def _shapes(graph: fx.Graph, trunk: nn.Module, below: set[fx.Node], pictures: Tensor) -> dict[fx.Node, list[int]]:
    """What crosses the cut, with the shape of one picture's share."""
    crossing = [node for node in graph.nodes if node in below and any(user not in below for user in node.users)]
    values: dict[fx.Node, Any] = {}

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n in crossing:
                values[n] = value
            return value

    with torch.no_grad():
        Watch(trunk, graph=graph).run(pictures)
    if [node for node in crossing if node.op == "placeholder"]:
        raise ValueError("nothing of it is frozen")
    for value in values.values():
        if not (isinstance(value, Tensor) and value.is_floating_point() and value.shape[0] == len(pictures)):
            raise ValueError("more than pictures' activations crosses there")
    return {node: list(values[node].shape[1:]) for node in crossing}


def _lower_graph(graph: fx.Graph, crossing: Sequence[fx.Node]) -> fx.Graph:
    lower, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    needed = _ancestors(crossing)
    for node in graph.nodes:
        if node in needed:
            copies[node] = lower.node_copy(node, lambda n: copies[n])
    lower.output(tuple(copies[node] for node in crossing))
    return lower


def _upper_graph(graph: fx.Graph, below: set[fx.Node], crossing: Sequence[fx.Node]) -> fx.Graph:
    upper = fx.Graph()
    copies = {node: upper.placeholder(node.name) for node in crossing}
    for node in graph.nodes:
        if node not in below:
            copies[node] = upper.node_copy(node, lambda n: copies[n])
    return upper


def _ancestors(nodes: Sequence[fx.Node]) -> set[fx.Node]:
    found, todo = set[fx.Node](), list(nodes)
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo += node.all_input_nodes
    return found


class _Lower(nn.Module):
    """Pictures -> rows: all that crosses the cut, flat, memory order channels_last where it is a map."""

    def __init__(self, graph: fx.GraphModule, shapes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.layers, self.shapes = graph, shapes

    def forward(self, pictures: Tensor) -> Tensor:
        found = zip(self.layers(pictures), self.shapes, strict=True)
        rows = [value.permute(0, 2, 3, 1) if len(shape) == 3 else value for value, shape in found]
        return torch.cat([row.flatten(1) for row in rows], 1)


class _Upper(nn.Module):
    """Rows -> what the trunk gives."""

    def __init__(self, graph: fx.GraphModule, shapes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.layers, self.shapes = graph, shapes

    def forward(self, rows: Tensor) -> Any:
        values, start = [], 0
        for shape in self.shapes:
            flat = rows[:, start : start + math.prod(shape)]
            start += math.prod(shape)
            if len(shape) == 3:  # a map comes back channels_last
                channels, height, width = shape
                values.append(flat.reshape(-1, height, width, channels).permute(0, 3, 1, 2))
            else:
                values.append(flat.reshape(-1, *shape))
        return self.layers(*values)
