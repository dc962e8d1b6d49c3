"""What trains and what stays: the trunk's blocks, counted from the input as timm counts them."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torch import nn

from headstart.errors import UserError


@dataclass(frozen=True)
class Block:
    """One unit of freezing: the stem is number 0. `parameters` are names in the trunk's state dict."""

    number: int
    name: str
    parameters: tuple[str, ...]
    size: int  # parameters, counted


def blocks(trunk: nn.Module) -> list[Block]:
    """The trunk's blocks from the input on, by timm's own grouping (the one its layer-wise decay uses).

    Raises:
        UserError: timm has no grouping for this network.
    """
    from timm.models import group_parameters

    if not hasattr(trunk, "group_matcher"):
        raise UserError(
            f"params.yaml: model.backbone: timm does not say which blocks its {type(trunk).__name__} has, "
            "so that none can be frozen; choose another backbone"
        )
    sizes = {name: parameter.numel() for name, parameter in trunk.named_parameters()}
    grouped = group_parameters(trunk, trunk.group_matcher(coarse=False))  # type: ignore[operator]
    return [
        Block(number, _common_name(names), tuple(names), sum(sizes[name] for name in names))
        for number, names in enumerate(names for _, names in sorted(grouped.items()))
    ]


def _common_name(names: list[str]) -> str:
    """`blocks.3.1` for blocks.3.1.conv.weight and its siblings; the first module where they share none."""
    parts = [name.split(".")[:-1] for name in names]
    shared: list[str] = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared) or ".".join(parts[0]) or names[0]


def depth_of(blocks: list[Block], freeze_depth: int) -> int:
    """How many blocks freeze_depth means: -1 is all of them.

    Raises:
        UserError: there are not so many.
    """
    if freeze_depth > len(blocks):
        raise UserError(
            f"params.yaml: fine_tune.freeze_depth: {freeze_depth}: this backbone has {len(blocks)} blocks; "
            f"give 0 to {len(blocks)}, or -1 for all"
        )
    return len(blocks) if freeze_depth == -1 else freeze_depth


def freeze(trunk: nn.Module, blocks: list[Block], depth: int, idle: Collection[str] = ()) -> set[str]:
    """Let the parameters of the first `depth` blocks have no gradient, and the others have one.

    `idle` are parameters that nothing depends on; they are frozen as well.
    Returns the names of all that is frozen. A bias that folding has made goes with its convolution's weight.
    """
    frozen = {name for block in blocks[:depth] for name in block.parameters} | set(idle)
    known = {name for block in blocks for name in block.parameters} | frozen
    for name, parameter in trunk.named_parameters():
        owner = name if name in known else f"{name.rpartition('.')[0]}.weight"
        if owner in frozen:
            frozen.add(name)
        parameter.requires_grad_(name not in frozen)
    return frozen


def train_mode(network: nn.Module) -> None:
    """`network.train()`, but what is frozen stays in eval mode: its batch norm keeps its stored statistics.

    A module is frozen when it has parameters and none of them trains. Dropout and the like inside the frozen part
    are off too, so that the frozen part is one function of the picture.
    """
    network.train()
    for module in _frozen(network):
        module.eval()


def _frozen(module: nn.Module) -> Iterator[nn.Module]:
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        yield module
        return
    for child in module.children():
        yield from _frozen(child)


def table(network: nn.Module, blocks: list[Block], depth: int) -> list[tuple[str, str, int, str]]:
    """Rows (number, name, parameters, frozen or trains), what stands on the trunk last."""
    rows = [(str(b.number), b.name, b.size, "frozen" if b.number < depth else "trains") for b in blocks]
    above = [(name, module) for name, module in network.named_children() if name != "trunk"]
    return [*rows, *(("", name, sum(p.numel() for p in module.parameters()), "trains") for name, module in above)]
