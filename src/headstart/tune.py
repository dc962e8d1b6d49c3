"""Train what lies above the frozen blocks of a pretrained network: the step that both tasks have in common."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from headstart import depthwise, freeze, inplace, modelfile, pool, ranks
from headstart.adamw import Group
from headstart.checkpoint import Checkpoints
from headstart.compiled import compile_trunk
from headstart.compute import Compute
from headstart.fit import Batch, Fit, fit
from headstart.fit_state import Best
from headstart.fold import Pair, fold, unfold
from headstart.freeze import Block
from headstart.lessons import Lessons
from headstart.modelfile import Card
from headstart.order import batches_of, steps_of
from headstart.params import FitParams


@dataclass(frozen=True)
class Plan:
    """Which blocks of the trunk stay as they are, and how the others train.

    Attributes:
        blocks: the trunk's, from the input on.
        depth: how many of them are frozen.
        idle: parameters that nothing depends on.
        layer_decay: each block's rate is the next one's times this.
        batch_norm: statistics of the blocks that train.
        thaws: (epochs done, blocks frozen from then on), down to `depth`; none: `depth` from the start.
        compiled: whether the trunk goes through torch.compile.
    """

    blocks: list[Block]
    depth: int
    idle: frozenset[str] = frozenset()
    layer_decay: float = 1.0
    batch_norm: Literal["fixed", "update"] = "fixed"
    thaws: tuple[tuple[int, int], ...] = ()
    compiled: bool = False

    def depth_in(self, epoch: int) -> int:
        """How many blocks are frozen in an epoch, counted from 1."""
        return [self.depth, *(depth for done, depth in self.thaws if done < epoch)][-1]


@dataclass(frozen=True)
class Tuned:
    """The best epoch, its tensors under their own names, and the checkpoints: done once these are on disk."""

    best: Best
    tensors: dict[str, Tensor]
    checkpoints: Checkpoints


def tune(
    network: nn.Module,
    tensors: dict[str, Tensor],
    plan: Plan,
    lessons: Callable[[set[str]], Lessons],
    *,
    section: FitParams,
    card: Card,
    compute: Compute,
    seed: int,
    root: Path,
    what: str,
    fit: Fit = fit,
) -> Tuned:
    """Fit a network of `trunk` and what stands on it.

    Args:
        network: with `trunk`, in eval mode; it is changed on the way.
        tensors: what it was built from.
        plan: what is frozen.
        lessons: names of the trunk's frozen parameters -> what the network is shown.
        section: epochs, rate, schedule.
        card: of the model.
        compute: where and in which precision.
        seed: of the order of the pictures, and of dropout.
        root: the repository root; history.csv goes to the stage's folder.
        what: the stage's name.
        fit: the loop, or what stands in its place.
    """
    pairs: list[Pair] = []
    trunk: nn.Module = network.get_submodule("trunk")
    if plan.batch_norm == "fixed":
        trunk, pairs = fold(trunk, card.input.size)
        network.trunk = trunk
    frozen = freeze.freeze(trunk, plan.blocks, plan.depth, plan.idle)
    before = {name: tensor.clone() for name, tensor in trunk.named_parameters() if name in frozen}
    shown = lessons(frozen)
    if compute.device.type == "cpu":
        quicken(trunk)
    compute.place(network)
    compute.place(shown.network)  # a cut trunk has some tensors of its own
    if plan.compiled and plan.depth < len(plan.blocks):
        compile_trunk(shown.network)

    checkpoints = Checkpoints.of(
        root,
        what,
        modelfile.digest(tensors),
        card.model_dump(),
        compute.name(),
        seed,
        section.model_dump(),
        [plan.depth, plan.layer_decay, plan.batch_norm, plan.thaws, plan.compiled],
        shown.facts,
    )

    def rows_of(epoch: int) -> Sequence[Tensor]:
        return batches_of(epoch, len(shown.names), shown.labels, section, seed)

    def batches(epoch: int, first: int) -> Iterator[Batch]:
        mine = [ranks.share(rows, what) for rows in rows_of(epoch)[first:]]
        made = pool.ahead(lambda rows: shown.batch(rows, epoch), mine)
        for rows, (inputs, targets) in zip(mine, made, strict=True):
            yield shown.mix(inputs, targets, seed, epoch, *rows.tolist()) if shown.mix else (inputs, targets)

    def begin(epoch: int) -> None:
        freeze.freeze(trunk, plan.blocks, plan.depth_in(epoch), plan.idle)
        if epoch > 1 and plan.depth_in(epoch) < plan.depth_in(epoch - 1):
            print(f"{what}: from epoch {epoch} on, {plan.depth_in(epoch)} blocks are frozen", flush=True)

    torch.manual_seed(seed)  # dropout's draws must not depend on what was in a cache
    best = fit(
        Autocast(shown.network, trunk, compute, plan.batch_norm),
        groups(network, plan.blocks, plan.layer_decay),
        batches=batches,
        steps=steps_of(len(shown.names), section.batch_size),
        loss=shown.loss,
        validate=shown.validate,
        params=section,
        history=root / "stages" / what / "history.csv",
        what=what,
        pictures=lambda epoch, batch: [shown.names[row] for row in rows_of(epoch)[batch]],
        checkpoints=checkpoints,
        begin=begin,
    )
    after = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    assert all(torch.equal(after[f"trunk.{name}"], tensor) for name, tensor in before.items()), "a frozen weight moved"
    saved = unfold(modelfile.under("trunk.", after), pairs, modelfile.under("trunk.", tensors), frozen)
    saved = {f"trunk.{name}": tensor for name, tensor in saved.items()}
    saved |= {name: tensor for name, tensor in after.items() if not name.startswith("trunk.")}
    return Tuned(best, saved, checkpoints)


def quicken(trunk: nn.Module) -> None:
    """Let a trunk's layers, in place, train as fast as a CPU allows. What they compute stays as it is."""
    depthwise.quick_depthwise(trunk)
    inplace.no_copies(trunk)


class Autocast(nn.Module):
    """A network that computes in the machine's precision, and whose trunk keeps its statistics where they are fixed."""

    def __init__(self, network: nn.Module, trunk: nn.Module, compute: Compute, batch_norm: str) -> None:
        super().__init__()
        self.network, self.compute, self.batch_norm = network, compute, batch_norm
        self.norms = [m for m in trunk.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    def train(self, mode: bool = True) -> "Autocast":
        super().train(mode)
        if self.batch_norm == "fixed":  # most are folded; the others must not go on counting
            for module in self.norms:
                module.eval()
        return self

    def forward(self, inputs: Tensor | tuple[Tensor, ...]) -> Tensor:
        with self.compute.autocast():
            said: Tensor = self.network(*inputs) if isinstance(inputs, tuple) else self.network(inputs)
        return said


def groups(network: nn.Module, blocks: list[Block], decay: float) -> list[Group]:
    """AdamW groups: the head at the full rate, each block at the next one's times `decay`; biases do not decay."""
    number = {name: block.number for block in blocks for name in block.parameters}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        part = name.removeprefix("trunk.")
        # A folded convolution's bias is new; it belongs to the block of its weight.
        block = number.get(part, number.get(f"{part.rpartition('.')[0]}.weight", len(blocks)))
        groups.setdefault((decay ** (len(blocks) - block), parameter.ndim > 1), []).append(parameter)
    return [Group(some, scale, weight_decay=None if decays else 0.0) for (scale, decays), some in groups.items()]
