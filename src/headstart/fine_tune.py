"""The steps after the head: unfreeze what lies above freeze_depth, fit it all with a lower rate."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from headstart import classify, coco, depthwise, files, freeze, lessons, modelfile, weights
from headstart.adamw import Group
from headstart.checkpoint import Checkpoints
from headstart.compute import Compute, prepare
from headstart.embed import Trunk
from headstart.files import write_json
from headstart.fit import Batch, Best, fit, order, steps_of
from headstart.fold import Pair, fold, unfold
from headstart.freeze import Block
from headstart.lessons import Lessons
from headstart.modelfile import Card
from headstart.params import Params


def fine_tune(params: Params, root: Path) -> None:
    """Write stages/fine-tune: the network with the blocks above freeze_depth trained, history.csv, metrics.json."""
    compute = prepare(params.train, params.seed)
    tensors, card = modelfile.read(root / "stages/train-head/model.safetensors")
    section, out = params.fine_tune, root / "stages/fine-tune"
    network = classify.build(tensors, card)
    blocks = freeze.blocks(network.trunk)
    depth = freeze.depth_of(blocks, section.freeze_depth)
    show_blocks(blocks, depth, network.head)

    pairs: list[Pair] = []
    if section.batch_norm == "fixed":
        network.trunk, pairs = fold(network.trunk, card.input.size)
    frozen = freeze.freeze(network.trunk, blocks, depth)
    before = {name: tensor.clone() for name, tensor in network.trunk.named_parameters() if name in frozen}
    if section.cache_frozen:
        pretrained = modelfile.under("trunk.", tensors)

        def build() -> nn.Module:
            trunk = weights.trunk(card.backbone)
            trunk.load_state_dict(pretrained)
            return trunk

        trunk = Trunk(build, modelfile.digest(pretrained), card.input, compute, root)
        shown = lessons.cached(network, frozen, trunk, params)
    else:
        shown = lessons.fresh(network, params, card, compute, root)
    checkpoints = _checkpoints(tensors, card, compute, params, root)
    best = _fit(network, shown, blocks, checkpoints, params=params, card=card, compute=compute, root=root)
    after = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    assert all(torch.equal(after[f"trunk.{name}"], tensor) for name, tensor in before.items()), "a frozen weight moved"

    saved = unfold(modelfile.under("trunk.", after), pairs, modelfile.under("trunk.", tensors), frozen)
    saved = {f"trunk.{name}": tensor for name, tensor in saved.items()}
    saved |= {name: tensor for name, tensor in after.items() if name.startswith("head.")}
    modelfile.save(out / "model.safetensors", saved, card)
    sizes = {"frozen_parameters": sum(block.size for block in blocks[:depth])}
    sizes["trained_parameters"] = sum(block.size for block in blocks[depth:]) + _size(network.head)
    write_json(out / "metrics.json", {"best_epoch": best.epoch, "epochs": best.epochs, **best.scores, **sizes})
    table = [
        {"block": n, "name": name, "parameters": size, "state": state}
        for n, name, size, state in freeze.table(blocks, depth, network.head)
    ]
    write_json(out / "blocks.json", table)
    checkpoints.clear()


def _checkpoints(tensors: dict[str, Tensor], card: Card, compute: Compute, params: Params, root: Path) -> Checkpoints:
    manifests = [root / "stages" / name for name in ("augment/train.json", "split/train.json", "split/val.json")]
    return Checkpoints.of(
        root,
        "fine-tune",
        modelfile.digest(tensors),
        card.model_dump(),
        compute.name(),
        params.seed,
        params.augment.model_dump(),
        params.fine_tune.model_dump(),
        [files.sha256(path) for path in manifests],
    )


def _fit(
    network: classify.Classifier,
    shown: Lessons,
    blocks: list[Block],
    checkpoints: Checkpoints,
    *,
    params: Params,
    card: Card,
    compute: Compute,
    root: Path,
) -> Best:
    """The second fit: the network above the frozen blocks, at a lower rate."""
    section = params.fine_tune
    depthwise.quick_depthwise(network.trunk)
    compute.place(network)
    train, val = (coco.read(root / f"stages/split/{name}.json").images for name in ("train", "val"))
    targets, val_targets = (classify.targets(images, card.labels) for images in (train, val))
    balance = classify.class_weights(targets, len(card.labels), section)

    def rows_of(epoch: int) -> Sequence[Tensor]:
        return order(len(train), section.batch_size, params.seed, epoch)

    def batches(epoch: int, first: int) -> Iterator[Batch]:
        for rows in rows_of(epoch)[first:]:
            yield shown.inputs(rows, epoch), targets[rows].to(compute.device)

    def loss(logits: Tensor, wanted: Tensor) -> Tensor:
        return classify.loss(logits, wanted, balance, section.label_smoothing)

    torch.manual_seed(params.seed)  # dropout's draws must not depend on what was in a cache
    return fit(
        Autocast(shown.network, compute, section.batch_norm),
        _groups(network, blocks, section.layer_decay),
        batches=batches,
        steps=steps_of(len(train), section.batch_size),
        loss=loss,
        validate=lambda: classify.score(shown.val(), val_targets),
        params=section,
        history=root / "stages/fine-tune/history.csv",
        what="fine-tune",
        pictures=lambda epoch, batch: [train[row].file_name for row in rows_of(epoch)[batch]],
        checkpoints=checkpoints,
    )


class Autocast(nn.Module):
    """A network that computes in the machine's precision, and whose trunk keeps its statistics where they are fixed."""

    def __init__(self, network: classify.Classifier, compute: Compute, batch_norm: str) -> None:
        super().__init__()
        self.network, self.compute, self.batch_norm = network, compute, batch_norm

    def train(self, mode: bool = True) -> "Autocast":
        super().train(mode)
        if self.batch_norm == "fixed":  # most are folded; the others must not go on counting
            for module in self.network.trunk.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, pictures: Tensor) -> Tensor:
        with self.compute.autocast():
            logits: Tensor = self.network(pictures)
        return logits


def _groups(network: classify.Classifier, blocks: list[Block], decay: float) -> list[Group]:
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


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def show_blocks(blocks: list[Block], depth: int, head: nn.Module) -> None:
    """Print which part of the network trains."""
    from rich.console import Console
    from rich.table import Table

    table = Table("block", "name", "parameters", "")
    for number, name, size, state in freeze.table(blocks, depth, head):
        table.add_row(number, name, f"{size:,}", state, style="dim" if state == "frozen" else "")
    Console().print(table)
