"""The learning-rate range test (Smith 2017, arXiv 1506.01186) of a training stage.

The rate grows with every batch until the loss diverges; half-way down the valley that the loss runs through before
that is a good rate. The stage's own files are not written or changed.
"""

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from headstart.base.errors import UserError
from headstart.base.files import csv_text, write_text
from headstart.base.progress import track
from headstart.models.freeze import set_train_mode
from headstart.params.root import Params
from headstart.params.training import TrainingStageParams
from headstart.training.batches import Batch
from headstart.training.loop import TrainLoop
from headstart.training.loop_state import BestEpoch
from headstart.training.optimizer import AdamW, ParamGroup

MIN_LR, MAX_LR, STEPS = 1e-6, 1.0, 100
SMOOTHING = 0.9  # decay of the loss's moving average
LEFT_EDGE = 10  # batches that the moving average needs: before, it is that of a few losses, and noise
CLEAR = 2.0  # least depth of the valley, in standard deviations of a batch's loss: noise alone reaches 2 in 1 of 1,000
DIVERGED = 4.0  # the test ends when the smoothed loss is so many times its minimum

TrainingStage = Callable[[Params, Path, TrainLoop], None]  # (params, root, loop)


@dataclass(frozen=True)
class LrCurve:
    """Learning rate, loss and smoothed loss of each batch, in order."""

    rates: list[float]
    losses: list[float]
    smoothed: list[float]

    def suggestion(self) -> float | None:
        """The rate half-way down the valley of the smoothed loss; None: no slope is clear against the noise.

        As fastai's valley rule, which takes the middle of the longest descent: by its depth, not by its length, so that
        noise on the plateau before it does not move the point. The left edge is left out.
        """
        smoothed = self.smoothed
        if len(smoothed) <= LEFT_EDGE + 1:
            return None
        bottom = min(range(LEFT_EDGE, len(smoothed)), key=smoothed.__getitem__)
        top = max(smoothed[LEFT_EDGE : bottom + 1])
        depth = top - smoothed[bottom]
        if depth <= CLEAR * _noise(self.losses[: bottom + 1]) or not depth:
            return None
        above = [n for n in range(LEFT_EDGE, bottom) if smoothed[n] > top - depth / 2]
        return self.rates[above[-1] + 1]


def _noise(losses: list[float]) -> float:
    """Standard deviation of a batch's loss, by the median change from batch to batch: a slope is next to nothing."""
    changes = [abs(after - before) for before, after in itertools.pairwise(losses)]
    return statistics.median(changes) / (math.sqrt(2) * statistics.NormalDist().inv_cdf(0.75))


class _RangeTestDoneError(Exception):
    """Ends a stage that would have trained, with the curve."""

    def __init__(self, curve: LrCurve) -> None:
        super().__init__()
        self.curve = curve


def lr_find(
    stage: str, params: Params, root: Path, out: Path, stages: Mapping[str, Callable[[], TrainingStage]]
) -> float | None:
    """Run the range test of a stage and write `out`/lr-find.csv and lr-find.png.

    Args:
        stage: train-head or fine-tune.
        params: all of params.yaml.
        root: the repository root.
        out: the folder to write to.
        stages: name -> a function that imports and returns the task's training stage.

    Returns:
        the suggested learning rate; None if no slope is clear against the noise.

    Raises:
        UserError: there is no such training stage, or stages before it have not run.
    """
    if stage not in stages:
        raise UserError(f"lr-find {stage}: not a training stage; give {' or '.join(stages)}")
    try:
        stages[stage]()(params, root, _range_test_loop)
    except _RangeTestDoneError as done:
        curve = done.curve
    rows = zip(curve.rates, curve.losses, curve.smoothed, strict=True)
    text = csv_text(("lr", "loss", "smoothed_loss"), ([f"{value:.6g}" for value in row] for row in rows))
    write_text(out / "lr-find.csv", text)
    section = params.train_head if stage == "train-head" else params.fine_tune
    _plot(curve, section.lr, stage, out / "lr-find.png")
    return curve.suggestion()


def _range_test_loop(
    network: nn.Module,
    groups: list[ParamGroup],
    *,
    batches: Callable[[int, int], Iterator[Batch]],
    loss: Callable[[Tensor, Tensor], Tensor],
    params: TrainingStageParams,
    stage: str,
    on_epoch_start: Callable[[int], None] = lambda epoch: None,
    **_: object,
) -> BestEpoch:
    """The range test in the place of `train_loop`, with its arguments."""
    on_epoch_start(1)
    raise _RangeTestDoneError(range_test(network, groups, batches, loss, params.weight_decay, stage))


def range_test(
    network: nn.Module,
    groups: list[ParamGroup],
    batches: Callable[[int, int], Iterator[Batch]],
    loss: Callable[[Tensor, Tensor], Tensor],
    weight_decay: float,
    stage: str,
) -> LrCurve:
    """Train while the rate grows from MIN_LR to MAX_LR in STEPS batches; ends early if the loss diverges.

    Arguments as in `train_loop`.
    """
    optimizer, curve, average = AdamW(groups, weight_decay), LrCurve([], [], []), 0.0
    set_train_mode(network)
    endless = itertools.chain.from_iterable(batches(epoch, 0) for epoch in itertools.count(1))
    for step, (inputs, targets) in enumerate(track(itertools.islice(endless, STEPS), f"{stage} range test", STEPS)):
        lr = MIN_LR * (MAX_LR / MIN_LR) ** (step / (STEPS - 1))
        value = loss(network(inputs), targets)
        if not math.isfinite(value.item()):
            break
        average = SMOOTHING * average + (1 - SMOOTHING) * value.item()
        curve.rates.append(lr)
        curve.losses.append(value.item())
        curve.smoothed.append(average / (1 - SMOOTHING ** (step + 1)))
        if curve.smoothed[-1] > DIVERGED * min(curve.smoothed):
            break
        optimizer.zero_grad()
        torch.autograd.backward(value)
        optimizer.step(lr)
    return curve


def _plot(curve: LrCurve, current: float, stage: str, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.rates, curve.losses, color="#bbbbbb", linewidth=1, label="loss of each batch")
    axes.plot(curve.rates, curve.smoothed, color="#1f6fb4", label="smoothed")
    axes.axvline(current, color="#888888", linestyle=":", label=f"params.yaml: {current:g}")
    if rate := curve.suggestion():
        axes.axvline(rate, color="#d1492e", label=f"half-way down: {rate:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss", title=f"{stage}: learning-rate range test")
    if curve.smoothed:
        axes.set_ylim(0.9 * min(curve.smoothed), 1.5 * max(curve.smoothed[: len(curve.smoothed) // 2 + 1]))
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
