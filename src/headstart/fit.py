"""The training loop, one for everything that trains."""

import csv
import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart import freeze, ranks
from headstart.adamw import Group
from headstart.checkpoint import Checkpoints, Stop
from headstart.errors import UserError
from headstart.files import write_text
from headstart.fit_state import Best, Run, Scores
from headstart.order import seed_of
from headstart.params import FitParams
from headstart.progress import track

Batch = tuple[Any, Tensor]  # what the network takes, and the targets
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

    run, seed = Run(network, groups, params), torch.initial_seed()
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


def _not_finite(value: float, what: str, params: FitParams, run: Run, steps: int, pictures: Sequence[str]) -> UserError:
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


def _write(history: Path, rows: list[dict[str, float]]) -> None:
    if not rows or not ranks.leads():
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[-1]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in rows)
    write_text(history, text.getvalue())
