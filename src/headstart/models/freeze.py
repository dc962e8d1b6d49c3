"""Frozen blocks: the backbone's blocks from the input on, as timm groups them, and which of them train."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torch import nn

from headstart.base.errors import UserError


@dataclass(frozen=True)
class Block:
    """One unit of freezing.

    Attributes:
        number: counted from the input; the stem is 0.
        name: what its parameters' names have in common.
        parameters: names in the backbone's state dict.
        size: how many values they have.
    """

    number: int
    name: str
    parameters: tuple[str, ...]
    size: int


def list_blocks(backbone: nn.Module) -> list[Block]:
    """The backbone's blocks from the input on, by timm's own grouping (that of its layer-wise learning-rate decay).

    Raises:
        UserError: timm has no grouping for this network.
    """
    from timm.models import group_parameters

    if not hasattr(backbone, "group_matcher"):
        raise UserError(
            f"params.yaml: model.backbone: timm does not define the blocks of its {type(backbone).__name__}, "
            "so that none can be frozen; choose another backbone"
        )
    sizes = {name: parameter.numel() for name, parameter in backbone.named_parameters()}
    grouped = group_parameters(backbone, backbone.group_matcher(coarse=False))  # type: ignore[operator]
    return [
        Block(number, _common_prefix(names), tuple(names), sum(sizes[name] for name in names))
        for number, names in enumerate(names for _, names in sorted(grouped.items()))
    ]


def _common_prefix(names: list[str]) -> str:
    """`blocks.3.1` for blocks.3.1.conv.weight and its siblings; the first name's module where they share none."""
    parts = [name.split(".")[:-1] for name in names]
    shared: list[str] = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared) or ".".join(parts[0]) or names[0]


def resolve_freeze_depth(blocks: list[Block], freeze_depth: int) -> int:
    """The number of frozen blocks that freeze_depth means: -1 is all of them.

    Raises:
        UserError: there are not so many.
    """
    if freeze_depth > len(blocks):
        raise UserError(
            f"params.yaml: fine_tune.freeze_depth: {freeze_depth}: this backbone has {len(blocks)} blocks; "
            f"give 0 to {len(blocks)}, or -1 for all"
        )
    return len(blocks) if freeze_depth == -1 else freeze_depth


def freeze_blocks(
    backbone: nn.Module, blocks: list[Block], depth: int, unused_parameters: Collection[str] = ()
) -> set[str]:
    """Set `requires_grad` of all parameters: False in the first `depth` blocks, True in the others.

    A bias that folding batch norm has added goes with its convolution's weight.

    Args:
        backbone: whose blocks they are.
        blocks: as `list_blocks` returns them.
        depth: how many are frozen.
        unused_parameters: names of parameters that no output depends on; they are frozen as well.

    Returns:
        names of all frozen parameters.
    """
    frozen = {name for block in blocks[:depth] for name in block.parameters} | set(unused_parameters)
    known = {name for block in blocks for name in block.parameters} | frozen
    for name, parameter in backbone.named_parameters():
        owner = name if name in known else f"{name.rpartition('.')[0]}.weight"
        if owner in frozen:
            frozen.add(name)
        parameter.requires_grad_(name not in frozen)
    return frozen


def set_train_mode(network: nn.Module) -> None:
    """`network.train()`, but frozen modules stay in eval mode: their batch norm uses its stored statistics.

    A module is frozen when it has parameters and none of them trains. Dropout and the like inside the frozen part
    are off too, so that the frozen part is one function of the picture.
    """
    network.train()
    for module in _frozen_modules(network):
        module.eval()


def _frozen_modules(module: nn.Module) -> Iterator[nn.Module]:
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        yield module
        return
    for child in module.children():
        yield from _frozen_modules(child)


def block_table(network: nn.Module, blocks: list[Block], depth: int) -> list[tuple[str, str, int, str]]:
    """Rows (number, name, number of values, frozen or trains): the backbone's blocks, then pyramid and head."""
    rows = [(str(b.number), b.name, b.size, "frozen" if b.number < depth else "trains") for b in blocks]
    above = [(name, module) for name, module in network.named_children() if name != "trunk"]
    return [*rows, *(("", name, sum(p.numel() for p in module.parameters()), "trains") for name, module in above)]


def table_of_kept_epoch(
    table: list[tuple[str, str, int, str]], depth: int, epoch: int
) -> list[tuple[str, str, int, str]]:
    """The rows of `block_table` with what had trained by the epoch that was kept; 0: nothing, pyramid and head neither.

    Args:
        table: as `block_table` returns it.
        depth: how many blocks were frozen in that epoch.
        epoch: its number.
    """
    return [
        (number, name, size, "frozen" if not epoch or (number and int(number) < depth) else "trains")
        for number, name, size, _ in table
    ]
