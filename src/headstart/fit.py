"""The training loop, one for everything that trains."""

import csv
import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart import freeze, ranks
from headstart.adamw import AdamW, Group
from headstart.checkpoint import Checkpoints, Stop
from headstart.errors import UserError
from headstart.files import write_text
from headstart.order import seed_of
from headstart.params import FitParams
from headstart.progress import track

Batch = tuple[Any, Tensor]  # what the network takes, and the targets
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


Fit = Callable[..., Best]  # `fit`, or what stands in its place


def fit(
    network: nn.Module,
    groups: list[Group],
    *,
    batches: Callable[[int, int], Iterator[Batch]],
    steps: int,
    loss: Callable[[Tensor, Tensor], Tensor],
    validate: Callable[[], Scores],
    params: FitParams,
    history: Path,
    what: str,
    pictures: Callable[[int, int], Sequence[str]],
    checkpoints: Checkpoints,
    begin: Callable[[int], None] = lambda epoch: None,
) -> Best:
    """Train, and leave the network as it was at its best epoch by val_loss.

    A run that was stopped goes on from its last checkpoint, and ends in the same bits as one that was not.

    Several processes (`ranks`) train as one does: each has its rows of every batch, a step follows the sum of their
    gradients, and all know the loss of the whole batch. Their number may be another one when a run goes on; the sums
    are then rounded differently. Only the first process returns.

    Args:
        network: what trains; its frozen parts stay in eval mode.
        groups: what the optimizer moves; `scale` is a group's share of params.lr.
        batches: epoch (from 1) and number of the first batch wanted (from 0) -> batches of inputs and targets, of each
            this process's rows.
        steps: batches in an epoch.
        loss: (network's output, targets) -> scalar: these rows' part of the whole batch's loss.
        validate: scores of the network as it is, val_loss among them.
        params: epochs, rate, schedule.
        history: where history.csv goes, one row an epoch.
        what: the stage's name, for the lines printed.
        pictures: epoch and number of a batch -> the files in it, for the line that says where a loss went wrong.
        checkpoints: of this training.
        begin: told each epoch before it begins; it may freeze parameters that trained at the start, or free them.

    Raises:
        UserError: the loss is not finite.
    """

    def scores() -> Scores:
        return ranks.told(validate())  # all must agree, to the bit, on which epoch is the best

    def pause(asked: int) -> None:
        """Save where the last checkpoint is old, and leave where that is asked."""
        if (checkpoints.due() or asked) and run.sound():
            checkpoints.save(run.state(), (run.epoch - 1) * steps + run.step)
        if asked:
            ranks.wait()  # or a launcher may end the first one while it writes
        stop.obey(asked, f"{what}: stopped in epoch {run.epoch} after batch {run.step} of {steps}; `dvc repro` goes on")

    run, seed = _Run(network, groups, params), torch.initial_seed()
    if found := checkpoints.load():
        run.restore(found)
    if ranks.told((run.epoch, run.step)) != (run.epoch, run.step):
        raise UserError(".cache/checkpoints: not all processes find the same ones; give all one file system")
    if found:
        where = f"in epoch {run.epoch}, after batch {run.step} of {steps}"
        print(f"{what}: goes on {where if run.epoch <= params.most_epochs() else 'after its last epoch'}", flush=True)
        _write(history, run.rows)
    else:
        network.eval()
        run.keep(Best(0, 0, scores()))
    with Stop() as stop:
        while run.epoch <= params.most_epochs() and not run.impatient():
            started = time.perf_counter()
            begin(run.epoch)
            freeze.train_mode(network)
            _no_own_statistics(network, what)
            rest = track(batches(run.epoch, run.step), f"{what} epoch {run.epoch}", steps - run.step)
            for inputs, targets in rest:
                if ranks.count() > 1:  # each draws its own dropout, by a key: nobody's random state need be kept
                    torch.manual_seed(seed_of(seed, run.epoch, run.step, ranks.rank()))
                value = loss(network(inputs), targets)
                shares, sizes, signals = zip(*ranks.each(value.item(), len(targets), stop.asked or 0), strict=True)
                total, asked = sum(shares), int(max(signals))
                if not math.isfinite(total):
                    raise _not_finite(total, what, params, run, steps, pictures(run.epoch, run.step))
                rate = params.lr * schedule((run.epoch - 1) * steps + run.step, steps, params)
                run.learn(value, total, rate, steps, int(sum(sizes)))
                if run.whole():
                    pause(asked)
            row = run.end_epoch(scores, params.lr * schedule(run.epoch * steps - 1, steps, params))
            print(
                f"  epoch {len(run.rows):>3}/{params.most_epochs()}  train loss {row['train_loss']:.4f}"
                f"  {_words(run.scores)}  {time.perf_counter() - started:.1f} s",
                flush=True,
            )
            _write(history, run.rows)
            pause(int(max(ranks.each(stop.asked or 0))[0]))
    if run.impatient():
        print(f"  no better val loss for {params.stops_after()} epochs: stopped")
    network.load_state_dict(run.kept)
    network.eval()
    print(f"  kept epoch {run.best.epoch}: {_words(run.best.scores)}")
    ranks.finish()
    return Best(run.best.epoch, len(run.rows), run.best.scores)


class _Run:
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


def _not_finite(
    value: float, what: str, params: FitParams, run: _Run, steps: int, pictures: Sequence[str]
) -> UserError:
    shown = ", ".join(pictures[:4]) + (f" and {len(pictures) - 4} more" if len(pictures) > 4 else "")
    return UserError(
        f"params.yaml: {what.replace('-', '_')}.lr: {params.lr}: the loss is {value} in epoch {run.epoch}, "
        f"batch {run.step + 1} of {steps} ({shown}); give a lower rate"
    )


def _no_own_statistics(network: nn.Module, what: str) -> None:
    """Batch norm looks at the whole batch, of which a process has but a part."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if ranks.count() > 1 and any(module.training for module in norms):
        raise UserError(
            f"params.yaml: launcher: {what} trains a batch norm, and {ranks.count()} processes cannot share its "
            "statistics; give model.head.batch_norm: false and fine_tune.batch_norm: fixed, or one process"
        )


def _words(scores: Scores) -> str:
    return "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in scores.items())


def schedule(step: int, steps: int, params: FitParams) -> float:
    """Share of the rate at a step: a linear warm-up, then half a cosine down to nothing at the last epoch's end."""
    warm, total = params.warmup_epochs * steps, params.most_epochs() * steps
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


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


def _write(history: Path, rows: list[dict[str, float]]) -> None:
    if not rows or not ranks.leads():
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[-1]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in rows)
    write_text(history, text.getvalue())
