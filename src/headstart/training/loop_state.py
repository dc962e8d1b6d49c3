"""The state of a training, complete between two steps: weights, optimizer, moving average, best epoch, history."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from headstart.base import distributed
from headstart.engine.device import random_state, restore_random_state
from headstart.params.training import AUTO_ANNEAL_EPOCHS, TrainingStageParams
from headstart.training.autocast import AutocastNetwork
from headstart.training.optimizer import AdamW, ParamGroup

ValMetrics = dict[str, float]


def epoch_score(metrics: ValMetrics) -> float:
    """What epochs are compared by, higher is better: val_fitness where the task has one, else minus the val loss."""
    return metrics.get("val_fitness", -metrics["val_loss"])


@dataclass(frozen=True)
class BestEpoch:
    """The epoch of the highest `epoch_score`.

    Attributes:
        epoch: its number; 0: the network before the first step.
        epochs: how many epochs were trained.
        metrics: of that epoch, on the validation pictures.
    """

    epoch: int
    epochs: int
    metrics: ValMetrics

    def to_metrics(self) -> dict[str, float]:
        """The fields of metrics.json."""
        return {"best_epoch": self.epoch, "epochs": self.epochs, **self.metrics}


class TrainingState:
    """Everything a training loop changes.

    Attributes:
        epoch: of the next batch, from 1.
        step: the next batch's number in its epoch, from 0.
        history: one row an epoch, as in history.csv.
        best: the best epoch so far.
        best_weights: the network's state dict at that epoch.
        val_metrics: of the last epoch.
        device: of the network.
        unread_losses: batch number, this rank's part of the loss, and size of the whole batch, of the batches since
            `read_losses`.
        anneal_after: epochs done when the rate began to fall because patience was out, or soon all epochs; None: it
            has not begun.
    """

    def __init__(self, network: nn.Module, groups: list[ParamGroup], params: TrainingStageParams) -> None:
        self._network, self._params = network, params
        self._trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.device = next(network.parameters()).device
        self._optimizer = AdamW(groups, params.weight_decay)
        # Small gradients would be 0 in fp16: the loss is scaled up, and a step whose gradients overflow is skipped.
        half = isinstance(network, AutocastNetwork) and network.compute.dtype == torch.float16
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        self._ema = [parameter.detach().clone() for parameter in self._trained]
        self._loss_sum = self._pictures = 0.0  # of this epoch
        self.unread_losses: list[tuple[int, Tensor, int]] = []
        self._accumulated_sizes: list[int] = []  # sizes of the batches whose gradients wait for the next step
        self.epoch, self.step = 1, 0
        self.history: list[dict[str, float]] = []
        self.best = BestEpoch(0, 0, {})
        self.best_weights: dict[str, Tensor] = {}
        self.val_metrics: ValMetrics = {}
        self.anneal_after: int | None = None

    def mark_best(self, best: BestEpoch) -> None:
        """Record the network in its present state as the best so far."""
        self.best, self.best_weights = best, _snapshot(self._network)

    def out_of_patience(self) -> bool:
        """Whether the last epochs, as many as the patience and all of them after the last unfreeze, were no better."""
        since = max(self.best.epoch, self._params.last_unfreeze())
        return 0 < self._params.early_stopping_patience() <= len(self.history) - since

    def last_epoch(self) -> int:
        """Number of the last epoch, unless training stops or anneals before."""
        return self._params.max_epochs() if self.anneal_after is None else self.anneal_after + AUTO_ANNEAL_EPOCHS

    def stopped_early(self) -> bool:
        """Whether the patience is out, and ends the training: where it `anneals`, it does that instead."""
        return not self._params.anneals() and self.out_of_patience()

    def finished(self) -> bool:
        """Whether no epoch is left."""
        return self.epoch > self.last_epoch() or self.stopped_early()

    def gradients_applied(self) -> bool:
        """Whether no accumulated gradient waits for its step: they are not part of `state`."""
        return not self._accumulated_sizes

    def weights_finite(self) -> bool:
        """Whether all weights are finite; if a gradient was not, the loss of the next batch shows it."""
        return bool(torch.isfinite(nn.utils.get_total_norm([parameter.detach() for parameter in self._trained])))

    def train_batch(self, loss: Tensor, lr: float, steps: int, batch_size: int) -> None:
        """Backward pass of one batch, and an optimizer step once `accumulate` batches are done or the epoch ends.

        Args:
            loss: this rank's part of the batch's loss, a scalar with gradients.
            lr: learning rate of the step.
            steps: batches in an epoch.
            batch_size: pictures in the whole batch.
        """
        params = self._params
        if not self._accumulated_sizes:
            self._optimizer.zero_grad()
        torch.autograd.backward(self._scaler.scale(loss if params.accumulate == 1 else loss * batch_size))
        self._accumulated_sizes.append(batch_size)
        self.unread_losses.append((self.step, loss.detach(), batch_size))
        self.step += 1
        if len(self._accumulated_sizes) >= params.accumulate or self.step >= steps:
            self._apply_gradients(lr, steps)

    def read_losses(self) -> list[tuple[int, float]]:
        """Batch number and loss, summed over all ranks, of the batches since the last call; waits for the device."""
        if not self.unread_losses:
            return []
        batches, losses, sizes = zip(*self.unread_losses, strict=True)
        self.unread_losses.clear()
        parts = distributed.all_gather_numbers(*torch.stack(losses).tolist())  # of each rank
        values = [sum(of_ranks) for of_ranks in zip(*parts, strict=True)]
        for value, size in zip(values, sizes, strict=True):
            self._loss_sum, self._pictures = self._loss_sum + value * size, self._pictures + size
        return list(zip(batches, values, strict=True))

    def _apply_gradients(self, lr: float, steps: int) -> None:
        params = self._params
        distributed.all_reduce_gradients(self._trained)
        if self._scaler.is_enabled():
            self._scaler.unscale_(self._optimizer)  # type: ignore[arg-type]
        gradients = [parameter.grad for parameter in self._trained if parameter.grad is not None]
        if params.accumulate > 1:
            torch._foreach_div_(gradients, float(sum(self._accumulated_sizes)))
        if params.clip_norm:
            nn.utils.clip_grad_norm_(self._trained, params.clip_norm)
        self._scaler.step(self._optimizer, lr)  # type: ignore[arg-type]
        self._scaler.update()
        # Warm-up of the average: it must not remember the weights before the first step for long.
        steps_before = ((self.epoch - 1) * steps + self.step - 1) // params.accumulate
        decay = min(params.ema, (steps_before + 1) / (steps_before + 10))
        update_ema = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        update_ema(self._ema, [parameter.detach() for parameter in self._trained], None)
        self._accumulated_sizes.clear()

    def end_epoch(self, validate: Callable[[], ValMetrics], lr: float) -> dict[str, float]:
        """Validate the averaged weights and record them if they are the best; returns the epoch's row of history.csv.

        Args:
            validate: metrics of the network in its present state.
            lr: learning rate of the epoch's last step, for the history.
        """
        self._network.eval()
        current = _swap_weights(self._trained, self._ema)
        self.val_metrics = metrics = validate()
        train_loss = self._loss_sum / self._pictures
        self.history.append({"epoch": self.epoch, "lr": lr, "train_loss": train_loss, **metrics})
        best_score = epoch_score(self.best.metrics)
        if epoch_score(metrics) > best_score or math.isnan(best_score):
            self.mark_best(BestEpoch(self.epoch, self.epoch, metrics))
        _swap_weights(self._trained, current)
        self.epoch, self.step, self._loss_sum, self._pictures = self.epoch + 1, 0, 0.0, 0.0
        return self.history[-1]

    def anneal_if_due(self) -> bool:
        """Begin the annealing if its time has come; whether it began.

        Its time has come when the patience is out, and with `epochs: auto` when no more epochs than it takes are left
        (a number of epochs ends with a low rate anyway, and is not exceeded). It begins from the
        best epoch's weights; where no epoch was better than none, from the present ones: the full rate would lead the
        untrained ones to the same place once more.
        """
        params, done = self._params, len(self.history)
        if not params.anneals() or self.anneal_after is not None:
            return False
        left = params.max_epochs() - done
        if params.epochs == "auto":
            due = self.out_of_patience() or left <= AUTO_ANNEAL_EPOCHS
        else:
            due = self.out_of_patience() and left >= AUTO_ANNEAL_EPOCHS
        if not due:
            return False
        self.anneal_after = done
        if self.best.epoch:
            self._network.load_state_dict(self.best_weights)
            torch._foreach_copy_(self._ema, [parameter.detach() for parameter in self._trained])
        return True

    def state(self) -> dict[str, Any]:
        """Everything, as tensors and plain values, for a checkpoint."""
        return {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state(),
            "loss_scale": self._scaler.state_dict(),
            "ema": self._ema,
            "best_weights": self.best_weights,
            "best": [self.best.epoch, self.best.epochs, self.best.metrics],
            "history": self.history,
            "position": [self.epoch, self.step, self._loss_sum, self._pictures],
            "anneal_after": self.anneal_after,
            "random": random_state(self.device),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self._network.load_state_dict(state["network"])
        self._optimizer.restore(state["optimizer"])
        self._scaler.load_state_dict(state["loss_scale"])
        torch._foreach_copy_(self._ema, state["ema"])
        self.best_weights, self.history = state["best_weights"], state["history"]
        self.best = BestEpoch(*state["best"])
        self.epoch, self.step, self._loss_sum, self._pictures = state["position"]
        self.anneal_after = state["anneal_after"]
        restore_random_state(self.device, state["random"])


def _swap_weights(parameters: list[nn.Parameter], values: list[Tensor]) -> list[Tensor]:
    """Copy values into the parameters, and return what they held."""
    before = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        torch._foreach_copy_([parameter.data for parameter in parameters], values)
    return before


def _snapshot(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
