"""Fine-tuning: the backbone's blocks above freeze_depth and the head, at a learning rate of its own."""

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from headstart.base.files import write_json
from headstart.base.kept_head import KEPT_HEAD, LR_FIND, lower_rate, within_noise_sentence
from headstart.engine.device import Compute, configure_torch
from headstart.models.file import ModelSpec, read_model_file, save_model_file
from headstart.models.freeze import block_table, resolve_freeze_depth, table_of_kept_epoch
from headstart.params.root import Params
from headstart.params.training import FineTuneParams
from headstart.training.batches import TrainableNetwork
from headstart.training.loop import TrainLoop, train_loop
from headstart.training.train_unfrozen import TrainingPlan, train_unfrozen

# (tensors and spec of a model file, params, compute, root) -> the network and its batches
LoadNetwork = Callable[[dict[str, Tensor], ModelSpec, Params, Compute, Path], TrainableNetwork]


def fine_tune(params: Params, root: Path, loop: TrainLoop | None = None, *, load: LoadNetwork) -> None:
    """Write stages/fine-tune: the network with the blocks above freeze_depth trained, history.csv, metrics.json.

    Where no epoch had a lower val loss than the head-only model, or with `keep: one_se` none that was lower by more
    than its noise, that model is written, bit for bit, and metrics.json has best_epoch 0. blocks.json and metrics.json
    count what had trained by the epoch that was kept.

    Args:
        params: all of params.yaml.
        root: the repository root.
        load: builds the task's network and its batches.
        loop: the training loop; None: `train_loop`.

    Raises:
        UserError: train-head has not run, the backbone has fewer blocks than freeze_depth, or the loss diverges.
    """
    compute = configure_torch(params.train, params.seed)
    tensors, spec = read_model_file(root / "stages/train-head/model.safetensors")
    section, out = params.fine_tune, root / "stages/fine-tune"
    network, blocks, unused_parameters, make_batches = load(tensors, spec, params, compute, root)
    plan = TrainingPlan(
        blocks,
        freeze_depth=resolve_freeze_depth(blocks, section.freeze_depth),
        unused_parameters=unused_parameters,
        layer_decay=section.layer_decay,
        backbone_lr_scale=section.backbone_lr_scale,
        batch_norm=section.batch_norm,
        unfreeze_schedule=tuple((step.epoch, resolve_freeze_depth(blocks, step.depth)) for step in section.unfreeze),
        compiled=params.train.compile,
        keep=section.keep,
    )
    table = block_table(network, blocks, plan.freeze_depth)
    print_blocks(table)
    trained = train_unfrozen(
        network,
        tensors,
        plan,
        make_batches,
        section=section,
        spec=spec,
        compute=compute,
        seed=params.seed,
        root=root,
        stage="fine-tune",
        loop=loop or train_loop,
    )
    best = trained.best
    table = table_of_kept_epoch(table, plan.freeze_depth_at(best.epoch), best.epoch)
    save_model_file(out / "model.safetensors", trained.tensors, spec)
    sizes = {
        f"{key}_parameters": sum(size for _, _, size, of_block in table if of_block == state)
        for key, state in (("frozen", "frozen"), ("trained", "trains"))
    }
    change = trained.change.to_metrics() if trained.change else {}
    write_json(out / "metrics.json", best.to_metrics() | change | sizes)
    rows = [{"block": n, "name": name, "parameters": size, "state": state} for n, name, size, state in table]
    write_json(out / "blocks.json", rows)
    trained.checkpoints.mark_finished()
    if not best.epoch:
        print(not_better_line(section, change, can_freeze_more=plan.freeze_depth < len(blocks)))


def not_better_line(section: FineTuneParams, change: Mapping[str, float], *, can_freeze_more: bool) -> str:
    """The line for a fine-tuning after which the head-only model was kept; `change` is as in metrics.json."""
    if change:
        return f"fine-tune: {within_noise_sentence(change)}"
    freeze_more = " or a greater freeze_depth" if can_freeze_more else ""
    return f"fine-tune: {KEPT_HEAD}; try fine_tune.lr: {lower_rate(section.lr)}{freeze_more} ({LR_FIND})"


def print_blocks(table: list[tuple[str, str, int, str]]) -> None:
    """Print which blocks are frozen and which train."""
    from rich.console import Console
    from rich.table import Table

    printed = Table("block", "name", "parameters", "state")
    for number, name, size, state in table:
        printed.add_row(number, name, f"{size:,}", state, style="dim" if state == "frozen" else "")
    Console().print(printed)
