"""The steps after the head: unfreeze what lies above freeze_depth, fit it all with a lower rate."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from headstart import checkpoint, classify, freeze, lessons, modelfile, weights
from headstart.compute import Compute, prepare
from headstart.embed import Trunk
from headstart.files import write_json
from headstart.fit import Fit, fit
from headstart.freeze import Block
from headstart.lessons import Lessons
from headstart.modelfile import Card
from headstart.params import Params
from headstart.tune import Plan, tune


class Pupil(NamedTuple):
    """A network of `trunk` and what stands on it, in eval mode.

    Attributes:
        network: the network.
        blocks: the trunk's, from the input on.
        idle: the trunk's parameters that nothing depends on.
        shown: names of the trunk's frozen parameters -> what the network is shown.
    """

    network: nn.Module
    blocks: list[Block]
    idle: frozenset[str]
    shown: Callable[[set[str]], Lessons]


def fine_tune(params: Params, root: Path) -> None:
    """Write stages/fine-tune: the network with the blocks above freeze_depth trained, history.csv, metrics.json."""
    fine_tune_by(params, root, fit)


def fine_tune_by(params: Params, root: Path, fit: Fit) -> None:
    """The stage with another loop in the place of `fit`: the range test's, say."""
    compute = prepare(params.train, params.seed)
    tensors, card = modelfile.read(root / "stages/train-head/model.safetensors")
    checkpoint.sweep(root, "train-head")
    section, out = params.fine_tune, root / "stages/fine-tune"
    of_task = _detector if params.task == "detect" else _classifier
    network, blocks, idle, shown = of_task(tensors, card, params, compute, root)
    depth = freeze.depth_of(blocks, section.freeze_depth)
    thaws = tuple((step.epoch, freeze.depth_of(blocks, step.depth)) for step in section.unfreeze)
    table = freeze.table(network, blocks, depth)
    show_blocks(table)
    tuned = tune(
        network,
        tensors,
        Plan(blocks, depth, idle, section.layer_decay, section.batch_norm, thaws, params.train.compile),
        shown,
        section=section,
        card=card,
        compute=compute,
        seed=params.seed,
        root=root,
        what="fine-tune",
        fit=fit,
    )
    modelfile.save(out / "model.safetensors", tuned.tensors, card)
    sizes = {
        f"{which}_parameters": sum(row[2] for row in table if row[3] == state)
        for which, state in (("frozen", "frozen"), ("trained", "trains"))
    }
    write_json(out / "metrics.json", tuned.best.row() | sizes)
    rows = [{"block": n, "name": name, "parameters": size, "state": state} for n, name, size, state in table]
    write_json(out / "blocks.json", rows)
    tuned.checkpoints.done()


def _classifier(tensors: dict[str, Tensor], card: Card, params: Params, compute: Compute, root: Path) -> Pupil:
    network = classify.build(tensors, card)

    def shown(frozen: set[str]) -> Lessons:
        if not params.fine_tune.cache_frozen:
            return lessons.fresh(network, params, card, compute, root)
        pretrained = modelfile.under("trunk.", tensors)
        digest = modelfile.digest(pretrained)
        most = params.train.cache_gb
        trunk = Trunk(lambda: _trunk(pretrained, card), digest, card.input, compute, root, card.backbone, most)
        return lessons.cached(network, frozen, trunk, params, card)

    return Pupil(network, freeze.blocks(network.trunk), frozenset(), shown)


def _detector(tensors: dict[str, Tensor], card: Card, params: Params, compute: Compute, root: Path) -> Pupil:
    from headstart import box_lessons, detect  # a classifier wants none of them

    network = detect.build(tensors, card)
    blocks, idle = detect.blocks(network)
    return Pupil(network, blocks, idle, lambda _: box_lessons.fresh(network, params, card, compute, root))


def _trunk(pretrained: dict[str, Tensor], card: Card) -> nn.Module:
    trunk = weights.trunk(card.backbone)
    trunk.load_state_dict(pretrained)
    return trunk


def show_blocks(table: list[tuple[str, str, int, str]]) -> None:
    """Print which part of the network trains."""
    from rich.console import Console
    from rich.table import Table

    shown = Table("block", "name", "parameters", "state")
    for number, name, size, state in table:
        shown.add_row(number, name, f"{size:,}", state, style="dim" if state == "frozen" else "")
    Console().print(shown)
