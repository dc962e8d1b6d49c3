"""Train a pretrained network above its frozen blocks: the part that head training and fine-tuning share."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from headstart.engine.compile import compile_backbone
from headstart.engine.cpu.optimize import optimize
from headstart.engine.device import Compute
from headstart.engine.fold_batch_norm import FoldedNorm, fold_batch_norm, unfold_batch_norm
from headstart.models.file import ModelSpec, hash_tensors, strip_prefix
from headstart.models.freeze import Block, freeze_blocks
from headstart.params.training import TrainingStageParams
from headstart.training.autocast import AutocastNetwork
from headstart.training.batch_norm import trains_batch_norm
from headstart.training.batches import Batch, TrainingBatches
from headstart.training.checkpoint import Checkpoints
from headstart.training.loop import TrainLoop
from headstart.training.loop_state import BestEpoch
from headstart.training.optimizer import param_groups_layer_decay
from headstart.training.sampler import BatchSampler
from headstart.training.val_change import ValChange


@dataclass(frozen=True)
class TrainingPlan:
    """Which blocks of the backbone are frozen, and how the others train.

    Attributes:
        blocks: the backbone's, from the input on.
        freeze_depth: how many of them are frozen.
        unused_parameters: names of the backbone's parameters that no output depends on.
        layer_decay: a block's learning rate is the next one's times this.
        backbone_lr_scale: the backbone's learning rates are times this.
        batch_norm: running statistics of the blocks that train.
        unfreeze_schedule: (epochs done, blocks frozen from then on), down to freeze_depth; empty: freeze_depth from
            the start.
        compiled: whether the backbone goes through torch.compile.
        keep: lowest: the epoch of the lowest val loss; one_se: the network as it was, unless that epoch's loss is lower
            by more than a standard error. A task whose loss is no mean of pictures' has lowest only.
    """

    blocks: list[Block]
    freeze_depth: int
    unused_parameters: frozenset[str] = frozenset()
    layer_decay: float = 1.0
    backbone_lr_scale: float = 1.0
    batch_norm: Literal["fixed", "update"] = "fixed"
    unfreeze_schedule: tuple[tuple[int, int], ...] = ()
    compiled: bool = False
    keep: Literal["lowest", "one_se"] = "lowest"

    def freeze_depth_at(self, epoch: int) -> int:
        """How many blocks are frozen in an epoch, from 1; 0: before the first one, where nothing has trained yet."""
        if not epoch:
            return len(self.blocks)
        return [self.freeze_depth, *(depth for done, depth in self.unfreeze_schedule if done < epoch)][-1]

    def freeze(self, backbone: nn.Module, epoch: int | None = None) -> set[str]:
        """Freeze the blocks of an epoch, None: of the last one; names of the frozen parameters."""
        depth = self.freeze_depth if epoch is None else self.freeze_depth_at(epoch)
        return freeze_blocks(backbone, self.blocks, depth, self.unused_parameters)


@dataclass(frozen=True)
class TrainedNetwork:
    """The result of a training.

    Attributes:
        best: the epoch of the highest `epoch_score`.
        tensors: the network's at that epoch, under the names of the model file. What was frozen up to then has every
            bit that it had; so has the whole network where no epoch was better than none.
        checkpoints: to be marked finished once the tensors are on disk.
        change: of the val loss, where the plan asks for it and an epoch had a lower one.
    """

    best: BestEpoch
    tensors: dict[str, Tensor]
    checkpoints: Checkpoints
    change: ValChange | None = None


def train_unfrozen(
    network: nn.Module,
    tensors: dict[str, Tensor],
    plan: TrainingPlan,
    make_batches: Callable[[set[str]], TrainingBatches],
    *,
    section: TrainingStageParams,
    spec: ModelSpec,
    compute: Compute,
    seed: int,
    root: Path,
    stage: str,
    loop: TrainLoop,
) -> TrainedNetwork:
    """Train everything in a network but the frozen blocks of its backbone.

    Args:
        network: the backbone is its `trunk`; in eval mode. It is changed: batch norm folded, layers replaced.
        tensors: the state dict that it was built from.
        plan: what is frozen.
        make_batches: names of the backbone's frozen parameters -> training batches.
        section: epochs, learning rate, schedule.
        spec: of the model.
        compute: device, precision, kernels.
        seed: of the samplers and of dropout.
        root: the repository root; history.csv goes to the stage's folder.
        stage: the stage's name.
        loop: the training loop.
    """
    folded: list[FoldedNorm] = []
    backbone: nn.Module = network.get_submodule("trunk")
    if plan.batch_norm == "fixed":
        backbone, folded = fold_batch_norm(backbone, spec.input.size)
        network.trunk = backbone
    frozen = plan.freeze(backbone)
    frozen_at_first = plan.freeze(backbone, 1)
    before = {name: tensor.clone() for name, tensor in backbone.named_parameters() if name in frozen_at_first}
    plan.freeze(backbone)
    data = make_batches(frozen)
    optimize(network, compute, training=True)
    compute.to_device(network)
    compute.to_device(data.network)  # the part of a split backbone has tensors of its own
    if plan.compiled and plan.freeze_depth < len(plan.blocks):
        compile_backbone(data.network)
    trained_network = AutocastNetwork(data.network, backbone, compute, plan.batch_norm)
    sampler = BatchSampler(len(data.file_names), data.labels, section, seed, trains_batch_norm(trained_network))
    section = section.for_batches(sampler.steps)

    def batches(epoch: int, first: int) -> Iterator[Batch]:
        return data.iterate(sampler.rank_rows(epoch, first, stage), epoch, seed)

    def unfreeze(epoch: int) -> None:
        plan.freeze(backbone, epoch)
        if epoch > 1 and plan.freeze_depth_at(epoch) < plan.freeze_depth_at(epoch - 1):
            print(f"{stage}: from epoch {epoch} on, {plan.freeze_depth_at(epoch)} blocks are frozen", flush=True)

    checkpoints = Checkpoints.for_stage(
        root,
        stage,
        hash_tensors(tensors),
        spec.model_dump(),
        compute.description(),
        seed,
        section.model_dump(),
        [plan.freeze_depth, plan.layer_decay, plan.batch_norm, plan.unfreeze_schedule, plan.compiled],
        data.checkpoint_key,
    )
    first = data.val_outcome() if plan.keep == "one_se" and data.val_outcome else None
    torch.manual_seed(seed)  # dropout must not depend on what was in a cache
    best = loop(
        trained_network,
        param_groups_layer_decay(network, plan.blocks, plan.layer_decay, plan.backbone_lr_scale),
        batches=batches,
        steps=sampler.steps,
        loss=data.loss,
        validate=data.validate,
        params=section,
        history=root / "stages" / stage / "history.csv",
        stage=stage,
        batch_files=lambda epoch, batch: [data.file_names[row] for row in sampler.rows(epoch)[batch]],
        checkpoints=checkpoints,
        on_epoch_start=unfreeze,
    )
    change = None
    if best.epoch and first and data.val_outcome and data.val_units is not None:
        change = ValChange.of(best.epoch, first.losses, data.val_outcome().losses, data.val_units)
        if not change.is_gain:
            best = replace(best, epoch=0, metrics=first.metrics)
    if not best.epoch:  # folding and unfolding batch norm would change bits
        return TrainedNetwork(best, tensors, checkpoints, change)
    trained = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    frozen = plan.freeze(backbone, best.epoch)
    for name in frozen & before.keys():
        assert torch.equal(trained[f"trunk.{name}"], before[name]), f"the frozen parameter {name} has changed"
    return TrainedNetwork(best, _unfold(trained, folded, tensors, frozen), checkpoints, change)


def _unfold(
    trained: dict[str, Tensor], folded: list[FoldedNorm], original: dict[str, Tensor], frozen: set[str]
) -> dict[str, Tensor]:
    """The trained tensors under the names of the original network, batch norms of the backbone unfolded."""
    backbone = unfold_batch_norm(strip_prefix("trunk.", trained), folded, strip_prefix("trunk.", original), frozen)
    tensors = {f"trunk.{name}": tensor for name, tensor in backbone.items()}
    return tensors | {name: tensor for name, tensor in trained.items() if not name.startswith("trunk.")}
