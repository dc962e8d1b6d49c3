"""A training of a second, for tests of the loop: two clouds of points, a network with dropout and batch norm."""

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.params.training import TrainingStageParams
from headstart.training.batches import Batch
from headstart.training.checkpoint import Checkpoints
from headstart.training.loop import train_loop
from headstart.training.loop_state import BestEpoch, ValMetrics
from headstart.training.optimizer import ParamGroup
from headstart.training.sampler import batch_sizes, shuffled_rows

ROWS, STEPS = 24, 3


def make_params(**changes: Any) -> TrainingStageParams:
    return TrainingStageParams.model_validate({"epochs": 4, "lr": 0.05, "batch_size": 8} | changes)


def make_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 2))


def train(
    folder: Path,
    params: TrainingStageParams,
    model: nn.Module,
    validate: Callable[[], ValMetrics] | None = None,
    spoil: Callable[[int, int], float] = lambda epoch, step: 1.0,
) -> BestEpoch:
    """Train on two clouds of points; `spoil` returns a factor for the inputs of a batch of an epoch."""
    generator = torch.Generator().manual_seed(1)
    targets = torch.arange(ROWS) % 2
    inputs = torch.randn(ROWS, 5, generator=generator) + targets[:, None]
    sizes = batch_sizes(ROWS, params.batch_size)

    def batches(epoch: int, first: int) -> Iterator[Batch]:
        for step, rows in list(enumerate(shuffled_rows(ROWS, sizes, 7, epoch)))[first:]:
            yield inputs[rows] * spoil(epoch, step), targets[rows]

    @torch.no_grad()
    def own_metrics() -> ValMetrics:
        assert not model.training
        return {"val_loss": F.cross_entropy(model(inputs), targets).item(), "val_accuracy": 0.5}

    torch.manual_seed(3)
    return train_loop(
        model,
        [ParamGroup(list(model.parameters()))],
        batches=batches,
        steps=len(sizes),
        loss=F.cross_entropy,
        validate=validate or own_metrics,
        params=params,
        history=folder / "history.csv",
        stage="train-head",
        batch_files=lambda epoch, batch: [f"{row}.png" for row in shuffled_rows(ROWS, sizes, 7, epoch)[batch].tolist()],
        checkpoints=Checkpoints(folder / "checkpoints"),
    )


def scripted_validation(
    model: nn.Module, losses: Sequence[float], seen: list[dict[str, Tensor]]
) -> Callable[[], ValMetrics]:
    """Losses given in advance (the first is before the first step); `seen` gets the network's weights each time."""
    remaining = iter(losses)

    def validate() -> ValMetrics:
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"val_loss": next(remaining), "val_accuracy": 0.5}

    return validate


def read_history(folder: Path) -> list[dict[str, float]]:
    with (folder / "history.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())
