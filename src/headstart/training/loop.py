"""The training loop, one for head training and fine-tuning, classifiers and detectors."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from headstart.base import distributed
from headstart.base.errors import UserError, list_some
from headstart.base.files import csv_text, write_text
from headstart.base.progress import track
from headstart.engine.device import explain_nondeterminism
from headstart.models.freeze import set_train_mode
from headstart.params.training import TrainingStageParams
from headstart.training.batch_norm import forbid_distributed_batch_norm
from headstart.training.batches import Batch
from headstart.training.checkpoint import Checkpoints
from headstart.training.graceful_stop import GracefulStop, exit_by_signal
from headstart.training.loop_state import BestEpoch, TrainingState, ValMetrics
from headstart.training.optimizer import ParamGroup
from headstart.training.sampler import seed_from_key
from headstart.training.schedule import lr_factor

# On a GPU: batches whose losses are read together. Reading one waits until all that was asked of the GPU is done, and
# it would stand still until the next step is asked for.
LOSSES_AT_ONCE = 20


class TrainLoop(Protocol):
    """`train_loop`, or a function with the same arguments in its place (the range test of `lr_finder`)."""

    def __call__(
        self,
        network: nn.Module,
        groups: list[ParamGroup],
        *,
        batches: Callable[[int, int], Iterator[Batch]],
        steps: int,
        loss: Callable[[Tensor, Tensor], Tensor],
        validate: Callable[[], ValMetrics],
        params: TrainingStageParams,
        history: Path,
        stage: str,
        batch_files: Callable[[int, int], Sequence[str]],
        checkpoints: Checkpoints,
        on_epoch_start: Callable[[int], None] = ...,
    ) -> BestEpoch:
        """Train; arguments as in `train_loop`."""


def train_loop(
    network: nn.Module,
    groups: list[ParamGroup],
    *,
    batches: Callable[[int, int], Iterator[Batch]],
    steps: int,
    loss: Callable[[Tensor, Tensor], Tensor],
    validate: Callable[[], ValMetrics],
    params: TrainingStageParams,
    history: Path,
    stage: str,
    batch_files: Callable[[int, int], Sequence[str]],
    checkpoints: Checkpoints,
    on_epoch_start: Callable[[int], None] = lambda epoch: None,
) -> BestEpoch:
    """Train, and leave the network as it was at the epoch of the highest `epoch_score`.

    A training that was stopped resumes from its last checkpoint, and ends in the same bits as one that was not.

    Several processes (`base.distributed`) train as one does: each has its rows of every batch, gradients are summed
    before a step, and every rank gets the loss of the whole batch. Their number may change when a training resumes;
    sums are then rounded differently. A last batch of fewer rows than processes shares with the one before it
    (`sampler.batch_sizes`). Only the main process returns.

    Args:
        network: frozen modules stay in eval mode.
        groups: parameters of the optimizer; `lr_scale` is relative to params.lr.
        batches: (epoch from 1, number of the first batch from 0) -> batches of inputs and targets, this rank's rows.
        steps: batches in an epoch.
        loss: (outputs, targets) -> scalar: these rows' part of the mean over the whole batch.
        validate: metrics of the network in its present state, val_loss among them.
        params: epochs, learning rate, schedule.
        history: path of history.csv, one row an epoch.
        stage: the stage's name, for printed lines and errors.
        batch_files: (epoch, batch number) -> the batch's picture files, for the error of a loss that is not finite.
        checkpoints: of this training.
        on_epoch_start: called with the number of each epoch; it may freeze or unfreeze parameters.

    Raises:
        UserError: the loss is not finite.
    """

    def validate_once() -> ValMetrics:
        return distributed.broadcast_object(validate())  # all ranks must agree, to the bit, on the best epoch

    def lr_at(step: int) -> float:
        return params.lr * lr_factor(step, steps, params, state.anneal_after)

    def read_losses() -> None:
        """Wait for the device, and raise if the loss of a batch is not finite."""
        for batch, value in state.read_losses():
            if not math.isfinite(value):
                raise _not_finite_error(value, stage, params, state.epoch, batch, steps, batch_files)

    def save_or_stop(signal_number: int) -> None:
        """Save a checkpoint if one is due, or save and exit if any rank has received a signal."""
        if checkpoints.due() or signal_number:
            read_losses()
            if state.weights_finite():
                checkpoints.save(state.state(), (state.epoch - 1) * steps + state.step)
        if signal_number:
            distributed.wait_for_all()  # else a launcher might kill the main process while it writes
            print(
                f"{stage}: stopped in epoch {state.epoch} after batch {state.step} of {steps}; `dvc repro` resumes",
                flush=True,
            )
            exit_by_signal(signal_number)

    state, seed = TrainingState(network, groups, params), torch.initial_seed()
    reads_every = LOSSES_AT_ONCE if state.device.type != "cpu" and distributed.get_world_size() == 1 else 1
    if not _resume(state, checkpoints, history, stage, steps):
        network.eval()
        state.mark_best(BestEpoch(0, 0, validate_once()))
    with GracefulStop() as stop:
        while not state.finished():
            started = time.perf_counter()
            on_epoch_start(state.epoch)
            set_train_mode(network)
            forbid_distributed_batch_norm(network, stage)
            remaining = batches(state.epoch, state.step)
            for inputs, targets in track(remaining, f"{stage} epoch {state.epoch}", steps - state.step):
                _seed_dropout(seed, state)
                batch_size, signal_number = _gather_batch(len(targets), stop)
                with explain_nondeterminism(f"{stage}'s network"):
                    state.train_batch(
                        loss(network(inputs), targets), lr_at((state.epoch - 1) * steps + state.step), steps, batch_size
                    )
                if state.gradients_applied():
                    if len(state.unread_losses) >= reads_every or state.step == steps:
                        read_losses()
                    save_or_stop(signal_number)
            row = state.end_epoch(validate_once, lr_at(state.epoch * steps - 1))
            print(
                f"  epoch {len(state.history):>3}/{state.last_epoch()}  train loss {row['train_loss']:.4f}"
                f"  {_format_metrics(state.val_metrics)}  {time.perf_counter() - started:.1f} s",
                flush=True,
            )
            _write_history(history, state.history)
            if state.anneal_if_due():
                begin = f", from the weights of epoch {state.best.epoch}" if state.best.epoch else ""
                print(f"  from here on the rate falls to 0{begin}", flush=True)
            save_or_stop(int(max(distributed.all_gather_numbers(stop.received or 0))[0]))
    if state.stopped_early():
        print(f"  no better epoch for {params.early_stopping_patience()} epochs: stopped early")
    network.load_state_dict(state.best_weights)
    network.eval()
    print(f"  best epoch {state.best.epoch}: {_format_metrics(state.best.metrics)}")
    distributed.shutdown_distributed()
    return BestEpoch(state.best.epoch, len(state.history), state.best.metrics)


def _resume(state: TrainingState, checkpoints: Checkpoints, history: Path, stage: str, steps: int) -> bool:
    """Restore the last checkpoint, if there is one; whether there was."""
    saved = checkpoints.load()
    if saved is not None:
        state.restore(saved)
    if distributed.broadcast_object((state.epoch, state.step)) != (state.epoch, state.step):
        raise UserError(".cache/checkpoints: not all processes find the same ones; give all one file system")
    if saved is None:
        return False
    position = f"in epoch {state.epoch}, after batch {state.step} of {steps}"
    print(f"{stage}: resumes {position if state.epoch <= state.last_epoch() else 'after its last epoch'}", flush=True)
    _write_history(history, state.history)
    return True


def _seed_dropout(seed: int, state: TrainingState) -> None:
    """Several processes: each has its own dropout, by a key, so that no rank's random state has to be saved."""
    if distributed.get_world_size() > 1:
        torch.manual_seed(seed_from_key(seed, state.epoch, state.step, distributed.get_rank()))


def _gather_batch(size: int, stop: GracefulStop) -> tuple[int, int]:
    """Size of the whole batch, summed over all ranks; and a signal if any rank has received one, else 0."""
    sizes, signals = zip(*distributed.all_gather_numbers(size, stop.received or 0), strict=True)
    return int(sum(sizes)), int(max(signals))


def _not_finite_error(
    value: float,
    stage: str,
    params: TrainingStageParams,
    epoch: int,
    batch: int,
    steps: int,
    batch_files: Callable[[int, int], Sequence[str]],
) -> UserError:
    files = list_some(batch_files(epoch, batch), 4)
    return UserError(
        f"params.yaml: {stage.replace('-', '_')}.lr: {params.lr}: the loss is {value} in epoch {epoch}, "
        f"batch {batch + 1} of {steps} ({files}); give a lower learning rate"
    )


def _format_metrics(metrics: ValMetrics) -> str:
    return "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in metrics.items())


def _write_history(history: Path, rows: list[dict[str, float]]) -> None:
    if not rows or not distributed.is_main_process():
        return
    names = list(rows[-1])
    write_text(history, csv_text(names, ([f"{row[name]:.6g}" for name in names] for row in rows)))
