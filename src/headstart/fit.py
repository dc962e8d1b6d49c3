"""The training loop, one for everything that trains."""

import csv
import hashlib
import io
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from headstart import freeze
from headstart.errors import UserError
from headstart.files import write_text
from headstart.params import FitParams
from headstart.progress import track

Batch = tuple[Tensor, Tensor]
Scores = dict[str, float]


@dataclass(frozen=True)
class Best:
    """The epoch that is kept (0: before the first step) and how it scored."""

    epoch: int
    epochs: int
    scores: Scores


def fit(
    network: nn.Module,
    groups: list[dict[str, object]],
    *,
    batches: Callable[[int], Iterator[Batch]],
    steps: int,
    loss: Callable[[Tensor, Tensor], Tensor],
    validate: Callable[[], Scores],
    params: FitParams,
    history: Path,
    what: str,
) -> Best:
    """Train, and leave the network as it was at its best epoch by val_loss.

    Args:
        network: what trains; its frozen parts stay in eval mode.
        groups: AdamW's parameter groups; `scale` is a group's share of params.lr.
        batches: epoch (from 1) -> batches of inputs and targets.
        steps: batches in an epoch.
        loss: (network's output, targets) -> scalar.
        validate: scores of the network as it is, val_loss among them.
        params: epochs, rate, schedule.
        history: where history.csv goes, one row an epoch.
        what: the stage's name, for the lines printed.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(groups, lr=params.lr, weight_decay=params.weight_decay)
    average = [parameter.detach().clone() for parameter in trained]
    network.eval()
    rows: list[dict[str, float]] = []
    best, kept = Best(0, 0, validate()), _snapshot(network)
    for epoch in range(1, params.epochs + 1):
        begin = time.perf_counter()
        freeze.train_mode(network)
        total = count = 0.0
        for number, (inputs, targets) in enumerate(track(batches(epoch), f"{what} epoch {epoch}", steps)):
            step = (epoch - 1) * steps + number
            for group in optimizer.param_groups:
                group["lr"] = params.lr * group["scale"] * schedule(step, steps, params)
            value = loss(network(inputs), targets)
            if not math.isfinite(value.item()):
                key = what.replace("-", "_")
                raise UserError(
                    f"params.yaml: {key}.lr: {params.lr}: the loss is {value.item()} in epoch {epoch}, "
                    f"batch {number + 1} of {steps}; give a lower rate"
                )
            optimizer.zero_grad()
            torch.autograd.backward(value)
            optimizer.step()
            _follow(average, trained, min(params.ema, (step + 1) / (step + 10)))
            total, count = total + value.item() * len(targets), count + len(targets)
        network.eval()
        current = _swap(trained, average)
        scores = validate()
        rows.append(
            {
                "epoch": epoch,
                "lr": params.lr * schedule(epoch * steps - 1, steps, params),
                "train_loss": total / count,
                **scores,
            }
        )
        print(
            f"  epoch {epoch:>3}/{params.epochs}  train loss {total / count:.4f}  {_words(scores)}  "
            f"{time.perf_counter() - begin:.1f} s",
            flush=True,
        )
        if scores["val_loss"] < best.scores["val_loss"]:
            best, kept = Best(epoch, epoch, scores), _snapshot(network)
        _swap(trained, current)
        write_text(history, _csv(rows))
        if params.patience and epoch - best.epoch >= params.patience:
            print(f"  no better val loss for {params.patience} epochs: stopped")
            break
    network.load_state_dict(kept)
    network.eval()
    print(f"  kept epoch {best.epoch}: {_words(best.scores)}")
    return Best(best.epoch, len(rows), best.scores)


def _words(scores: Scores) -> str:
    return "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in scores.items())


def schedule(step: int, steps: int, params: FitParams) -> float:
    """Share of the rate at a step: a linear warm-up, then half a cosine down to nothing at the last epoch's end."""
    warm, total = params.warmup_epochs * steps, params.epochs * steps
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


def _csv(rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[-1]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in rows)
    return text.getvalue()


def order(count: int, batch_size: int, *key: int) -> tuple[Tensor, ...]:
    """Rows 0..count-1 shuffled by a key, in batches of almost equal size: batch norm cannot do with one row."""
    digest = hashlib.sha256(repr(key).encode()).digest()  # torch looks at 32 bits of a seed: each must hold all the key
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))
    return torch.randperm(count, generator=generator).tensor_split(steps_of(count, batch_size))


def steps_of(count: int, batch_size: int) -> int:
    """Batches in an epoch: none of a single row, unless that is the size asked for."""
    most = count if batch_size == 1 else count // 2
    return max(1, min(round(count / batch_size), most))
