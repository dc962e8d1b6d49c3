"""Where a training stands: weights, optimizer, average, best epoch, history; between two steps it can be put away."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from headstart import ranks
from headstart.adamw import AdamW, Group
from headstart.params import FitParams

Scores = dict[str, float]


@dataclass(frozen=True)
class Best:
    """The epoch that is kept (0: before the first step) and how it scored."""

    epoch: int
    epochs: int
    scores: Scores

    def row(self) -> dict[str, float]:
        """As metrics.json has it."""
        return {"best_epoch": self.epoch, "epochs": self.epochs, **self.scores}


class Run:
    """All that a training loop knows of itself, between two steps."""

    def __init__(self, network: nn.Module, groups: list[Group], params: FitParams) -> None:
        self._network, self._params = network, params
        self._trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._optimizer = AdamW(groups, params.weight_decay)
        self._average = [parameter.detach().clone() for parameter in self._trained]
        self.epoch, self.step = 1, 0  # the step to come
        self._total = self._count = 0.0
        self._waiting: list[int] = []  # sizes of batches whose gradients are gathered for the next step
        self.rows: list[dict[str, float]] = []
        self.best = Best(0, 0, {})
        self.scores: Scores = {}  # of the last epoch
        self.kept: dict[str, Tensor] = {}

    def keep(self, best: Best) -> None:
        """The network as it is, is the best so far."""
        self.best, self.kept = best, _snapshot(self._network)

    def impatient(self) -> bool:
        """Whether the last epochs, as many as params.patience, brought nothing better."""
        return 0 < self._params.stops_after() <= len(self.rows) - self.best.epoch

    def whole(self) -> bool:
        """Whether every batch seen is in the weights: only then is there nothing more to a run than its state."""
        return not self._waiting

    def sound(self) -> bool:
        """Whether all weights are numbers: after a gradient that was none, the next batch's loss says so."""
        return bool(torch.isfinite(nn.utils.get_total_norm([each.detach() for each in self._trained])))

    def learn(self, value: Tensor, total: float, rate: float, steps: int, count: int) -> None:
        """One batch; a step down once there are enough of them.

        Args:
            value: this process's part of the batch's loss.
            total: the batch's loss, a mean over its pictures.
            rate: of the step.
            steps: batches in an epoch.
            count: pictures in the batch.
        """
        params = self._params
        if not self._waiting:
            self._optimizer.clear()
        torch.autograd.backward(value if params.accumulate == 1 else value * count)
        self._waiting.append(count)
        self._total, self._count = self._total + total * count, self._count + count
        self.step += 1
        if len(self._waiting) < params.accumulate and self.step < steps:
            return
        ranks.sum_gradients(self._trained)
        gradients = [parameter.grad for parameter in self._trained if parameter.grad is not None]
        if params.accumulate > 1:
            torch._foreach_div_(gradients, float(sum(self._waiting)))
        if params.clip_norm:
            nn.utils.clip_grad_norm_(self._trained, params.clip_norm)
        self._optimizer.step(rate)
        taken = ((self.epoch - 1) * steps + self.step - 1) // params.accumulate
        _follow(self._average, self._trained, min(params.ema, (taken + 1) / (taken + 10)))
        self._waiting.clear()

    def end_epoch(self, validate: Callable[[], Scores], rate: float) -> dict[str, float]:
        """Score the averaged weights, keep them if they are the best; the epoch's row of history.csv."""
        self._network.eval()
        current = _swap(self._trained, self._average)
        self.scores = scores = validate()
        self.rows.append({"epoch": self.epoch, "lr": rate, "train_loss": self._total / self._count, **scores})
        if scores["val_loss"] < self.best.scores["val_loss"] or math.isnan(self.best.scores["val_loss"]):
            self.keep(Best(self.epoch, self.epoch, scores))
        _swap(self._trained, current)
        self.epoch, self.step, self._total, self._count = self.epoch + 1, 0, 0.0, 0.0
        return self.rows[-1]

    def state(self) -> dict[str, Any]:
        """Everything, as tensors and plain values."""
        return {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state(),
            "average": self._average,
            "kept": self.kept,
            "best": [self.best.epoch, self.best.epochs, self.best.scores],
            "rows": self.rows,
            "place": [self.epoch, self.step, self._total, self._count],
            "random": [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self._network.load_state_dict(state["network"])
        self._optimizer.restore(state["optimizer"])
        torch._foreach_copy_(self._average, state["average"])
        self.kept, self.rows = state["kept"], state["rows"]
        self.best = Best(*state["best"])
        self.epoch, self.step, self._total, self._count = state["place"]
        torch.set_rng_state(state["random"][0])
        if state["random"][1:]:
            torch.cuda.set_rng_state(state["random"][1])


def _follow(average: list[Tensor], trained: list[nn.Parameter], decay: float) -> None:
    """Exponential moving average of the weights; a decay of 0 copies them."""
    with torch.no_grad():
        torch._foreach_lerp_(average, [parameter.detach() for parameter in trained], 1 - decay)


def _swap(trained: list[nn.Parameter], values: list[Tensor]) -> list[Tensor]:
    """Put values into the parameters, and return what was there."""
    before = [parameter.detach().clone() for parameter in trained]
    with torch.no_grad():
        torch._foreach_copy_([parameter.data for parameter in trained], values)
    return before


def _snapshot(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
