"""A network split where its frozen part ends: the frozen part runs once a picture, the other one in every epoch."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from headstart.base.errors import UserError, first_line
from headstart.engine.equivalence import example_input
from headstart.engine.input_spec import ImageSize
from headstart.engine.trace import TRACE_ERRORS, trace_layers
from headstart.features.activation_rows import Shapes, activations_to_rows, rows_to_activations
from headstart.models.block_features import BlockFeatures


@dataclass(frozen=True)
class SplitNetwork:
    """`upper(lower(pictures))` is `backbone(pictures)`; in between is one row of activations a picture.

    Both parts share their modules with the backbone that was split.

    Attributes:
        lower: the frozen part, pictures (n, 3, h, w) -> rows (n, width).
        upper: the rest, rows (n, width) -> outputs of the backbone.
        width: values in a row.
    """

    lower: nn.Module
    upper: nn.Module
    width: int


def split_network(backbone: nn.Module, frozen: Collection[str], size: ImageSize) -> SplitNetwork:
    """Split a backbone below its first parameter that trains.

    The backbone is traced (torch.fx); every node that depends on the picture and frozen parameters alone belongs to
    the lower part. Verified on two random pictures: both parts together compute what the backbone computes.

    Args:
        backbone: any timm network, on the CPU.
        frozen: names of its frozen parameters.
        size: side of the pictures, or height and width, in pixels.

    Raises:
        UserError: this network cannot be traced, or nothing of it is frozen.
    """
    backbone = backbone.eval()
    pictures = example_input(size)
    try:
        graph = trace_layers(backbone).graph
        frozen_nodes = _frozen_nodes(graph, backbone, frozen)
        crossing = _crossing_shapes(graph, backbone, frozen_nodes, pictures)
        nodes, shapes = list(crossing), list(crossing.values())
        lower = _LowerPart(fx.GraphModule(backbone, _lower_graph(graph, nodes)), shapes)
        upper = _UpperPart(fx.GraphModule(backbone, _upper_graph(graph, frozen_nodes, nodes)), shapes)
        with torch.no_grad():
            equal = torch.allclose(upper(lower(pictures)), backbone(pictures), atol=1e-4, rtol=1e-4)
    except (*TRACE_ERRORS, RuntimeError) as error:
        raise _split_error(backbone, first_line(error)) from None
    if not equal:
        raise _split_error(backbone, "its parts together compute something else than the whole")
    return SplitNetwork(lower, upper, sum(math.prod(shape) for shape in shapes))


def split_features(
    backbone: nn.Module, levels: Sequence[str], frozen: Collection[str], size: ImageSize
) -> SplitNetwork:
    """`split_network` for the features that a head takes: of these levels beside the pooled ones; empty: without."""
    if not levels:
        return split_network(backbone, frozen, size)
    return split_network(BlockFeatures(backbone, levels), {f"trunk.{name}" for name in frozen}, size)


def _split_error(backbone: nn.Module, reason: str) -> UserError:
    name = type(getattr(backbone, "trunk", backbone)).__name__
    return UserError(
        f"params.yaml: fine_tune.cache_frozen: true: {name} cannot be split at freeze_depth ({reason}); give false"
    )


def _frozen_nodes(graph: fx.Graph, backbone: nn.Module, frozen: Collection[str]) -> set[fx.Node]:
    """Nodes that depend on the picture and on no parameter that trains."""
    names = [name for name, _ in backbone.named_parameters()]
    trainable = {name for name in names if name not in frozen}
    upper: set[fx.Node] = set()
    lower: set[fx.Node] = set()
    for node in graph.nodes:
        target = str(node.target)
        own = {target} if node.op == "get_attr" else {name for name in names if name.startswith(f"{target}.")}
        trains = node.op in ("get_attr", "call_module") and bool(own & trainable)
        if node.op == "output" or trains or any(source in upper for source in node.all_input_nodes):
            upper.add(node)
        elif node.op == "placeholder" or any(source in lower for source in node.all_input_nodes):
            lower.add(node)
    return lower


def _crossing_shapes(
    graph: fx.Graph, backbone: nn.Module, frozen_nodes: set[fx.Node], pictures: Tensor
) -> Mapping[fx.Node, list[int]]:
    """Frozen nodes whose value the upper part uses, with the shape of one picture's activations."""
    crossing = [
        node for node in graph.nodes if node in frozen_nodes and any(user not in frozen_nodes for user in node.users)
    ]
    values: dict[fx.Node, Any] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n in crossing:
                values[n] = value
            return value

    with torch.no_grad():
        Recorder(backbone, graph=graph).run(pictures)
    if [node for node in crossing if node.op == "placeholder"]:
        raise ValueError("nothing of it is frozen")
    for value in values.values():
        if not (isinstance(value, Tensor) and value.is_floating_point() and value.shape[0] == len(pictures)):
            raise ValueError("the parts exchange more than activations of pictures")
    return {node: list(values[node].shape[1:]) for node in crossing}


def _lower_graph(graph: fx.Graph, crossing: Sequence[fx.Node]) -> fx.Graph:
    lower, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    needed = _ancestors(crossing)
    for node in graph.nodes:
        if node in needed:
            copies[node] = lower.node_copy(node, lambda n: copies[n])
    lower.output(tuple(copies[node] for node in crossing))
    return lower


def _upper_graph(graph: fx.Graph, frozen_nodes: set[fx.Node], crossing: Sequence[fx.Node]) -> fx.Graph:
    upper = fx.Graph()
    copies = {node: upper.placeholder(node.name) for node in crossing}
    for node in graph.nodes:
        if node not in frozen_nodes:
            copies[node] = upper.node_copy(node, lambda n: copies[n])
    return upper


def _ancestors(nodes: Sequence[fx.Node]) -> set[fx.Node]:
    ancestors, pending = set[fx.Node](), list(nodes)
    while pending:
        node = pending.pop()
        if node not in ancestors:
            ancestors.add(node)
            pending += node.all_input_nodes
    return ancestors


class _LowerPart(nn.Module):
    """Pictures -> rows of activations."""

    def __init__(self, graph: fx.GraphModule, shapes: Shapes) -> None:
        super().__init__()
        self.layers, self.shapes = graph, shapes

    def forward(self, pictures: Tensor) -> Tensor:
        return activations_to_rows(self.layers(pictures), self.shapes)


class _UpperPart(nn.Module):
    """Rows of activations -> outputs of the backbone."""

    def __init__(self, graph: fx.GraphModule, shapes: Shapes) -> None:
        super().__init__()
        self.layers, self.shapes = graph, shapes

    def forward(self, rows: Tensor) -> Any:
        return self.layers(*rows_to_activations(rows, self.shapes))
