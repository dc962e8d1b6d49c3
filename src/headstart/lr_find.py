"""The learning-rate range test (Smith 2017, arXiv 1506.01186): which rate a training stage may begin with.

The rate grows with every batch until the loss explodes; where the loss fell steepest before that is a good rate.
Nothing of a stage is written or changed.
"""

import csv
import io
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart import fine_tune, freeze, train_head
from headstart.adamw import AdamW, Group
from headstart.errors import UserError
from headstart.files import write_text
from headstart.fit import Batch
from headstart.fit_state import Best
from headstart.params import FitParams, Params
from headstart.progress import track

LOWEST, HIGHEST, STEPS = 1e-6, 1.0, 100
SMOOTHING = 0.9  # of the loss, from batch to batch
EXPLODED = 4.0  # times the least loss


@dataclass(frozen=True)
class Curve:
    """Rate, loss and smoothed loss of each batch, in the order they were tried."""

    rates: list[float]
    losses: list[float]
    smoothed: list[float]

    def suggested(self) -> float | None:
        """The rate where the smoothed loss falls steepest, ahead of its least; None where it never falls."""
        least = min(range(len(self.smoothed)), key=self.smoothed.__getitem__)
        # Over three batches each: a single one is noise.
        falls = [self.smoothed[n + 1] - self.smoothed[n - 1] for n in range(1, least)]
        if not falls or min(falls) >= 0:
            return None
        return self.rates[1 + falls.index(min(falls))]


class _FoundError(Exception):
    """How the test leaves a stage that would have trained."""

    def __init__(self, curve: Curve) -> None:
        super().__init__()
        self.curve = curve


def lr_find(stage: str, params: Params, root: Path, out: Path) -> float | None:
    """Write `out`/lr-find.csv and lr-find.png for train-head or fine-tune, and give the rate suggested.

    Raises:
        UserError: there is no such training stage, or stages before it have not run.
    """
    stages = {"train-head": train_head.train_head_by, "fine-tune": fine_tune.fine_tune_by}
    if stage not in stages:
        raise UserError(f"lr-find {stage}: no training stage; give {' or '.join(stages)}")
    try:
        stages[stage](params, root, _test)
    except _FoundError as found:
        curve = found.curve
    write_text(out / "lr-find.csv", _csv(curve))
    section = params.train_head if stage == "train-head" else params.fine_tune
    _draw(curve, section.lr, stage, out / "lr-find.png")
    return curve.suggested()


def _test(
    network: nn.Module,
    groups: list[Group],
    *,
    batches: Callable[[int, int], Iterator[Batch]],
    loss: Callable[[Tensor, Tensor], Tensor],
    params: FitParams,
    what: str,
    begin: Callable[[int], None] = lambda epoch: None,
    **_: Any,
) -> Best:
    """In the place of fit.fit, with what it is given."""
    begin(1)
    raise _FoundError(climb(network, groups, batches, loss, params.weight_decay, what))


def climb(
    network: nn.Module,
    groups: list[Group],
    batches: Callable[[int, int], Iterator[Batch]],
    loss: Callable[[Tensor, Tensor], Tensor],
    weight_decay: float,
    what: str,
) -> Curve:
    """Train with a rate that grows from LOWEST to HIGHEST in STEPS batches; ends early where the loss explodes."""
    optimizer, curve, average = AdamW(groups, weight_decay), Curve([], [], []), 0.0
    freeze.train_mode(network)
    shown = itertools.chain.from_iterable(batches(epoch, 0) for epoch in itertools.count(1))
    for step, (inputs, targets) in enumerate(track(itertools.islice(shown, STEPS), f"{what} rates", STEPS)):
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
        value = loss(network(inputs), targets)
        if not math.isfinite(value.item()):
            break
        average = SMOOTHING * average + (1 - SMOOTHING) * value.item()
        curve.rates.append(rate)
        curve.losses.append(value.item())
        curve.smoothed.append(average / (1 - SMOOTHING ** (step + 1)))
        if curve.smoothed[-1] > EXPLODED * min(curve.smoothed):
            break
        optimizer.clear()
        torch.autograd.backward(value)
        optimizer.step(rate)
    return curve


def _csv(curve: Curve) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("lr", "loss", "smoothed_loss"))
    rows = zip(curve.rates, curve.losses, curve.smoothed, strict=True)
    writer.writerows([f"{value:.6g}" for value in row] for row in rows)
    return text.getvalue()


def _draw(curve: Curve, current: float, stage: str, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.rates, curve.losses, color="#bbbbbb", linewidth=1, label="loss of each batch")
    axes.plot(curve.rates, curve.smoothed, color="#1f6fb4", label="smoothed")
    axes.axvline(current, color="#888888", linestyle=":", label=f"params.yaml: {current:g}")
    if rate := curve.suggested():
        axes.axvline(rate, color="#d1492e", label=f"steepest: {rate:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss", title=f"{stage}: learning-rate range test")
    if curve.smoothed:
        axes.set_ylim(0.9 * min(curve.smoothed), 1.5 * max(curve.smoothed[: len(curve.smoothed) // 2 + 1]))
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
