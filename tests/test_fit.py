"""The loop: what is kept, when it stops, how the rate goes, and the same bits twice."""

import csv
import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.adamw import AdamW, Group
from headstart.checkpoint import Checkpoints
from headstart.errors import UserError
from headstart.fit import Batch, fit, schedule
from headstart.fit_params import AUTO_EPOCHS, AUTO_PATIENCE
from headstart.fit_state import Best, Scores
from headstart.order import order, steps_of
from headstart.params import FitParams

ROWS, STEPS = 24, 3


def make(**changes: Any) -> FitParams:
    return FitParams.model_validate({"epochs": 4, "lr": 0.05, "batch_size": 8} | changes)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 2))


def run(
    folder: Path,
    params: FitParams,
    model: nn.Module,
    validate: Callable[[], Scores] | None = None,
    spoil: Callable[[int, int], float] = lambda epoch, step: 1.0,
) -> Best:
    """Fit two clouds of points. `spoil` multiplies the inputs of a batch of an epoch."""
    generator = torch.Generator().manual_seed(1)
    targets = torch.arange(ROWS) % 2
    inputs = torch.randn(ROWS, 5, generator=generator) + targets[:, None]

    def batches(epoch: int, first: int) -> Iterator[Batch]:
        for step, rows in list(enumerate(order(ROWS, params.batch_size, 7, epoch)))[first:]:
            yield inputs[rows] * spoil(epoch, step), targets[rows]

    @torch.no_grad()
    def scores() -> Scores:
        assert not model.training
        return {"val_loss": F.cross_entropy(model(inputs), targets).item(), "val_accuracy": 0.5}

    torch.manual_seed(3)
    return fit(
        model,
        [Group(list(model.parameters()))],
        batches=batches,
        steps=steps_of(ROWS, params.batch_size),
        loss=F.cross_entropy,
        validate=validate or scores,
        params=params,
        history=folder / "history.csv",
        what="train-head",
        pictures=lambda epoch, batch: [
            f"{row}.png" for row in order(ROWS, params.batch_size, 7, epoch)[batch].tolist()
        ],
        checkpoints=Checkpoints(folder / "checkpoints"),
    )


def scripted(model: nn.Module, losses: Sequence[float], seen: list[dict[str, Tensor]]) -> Callable[[], Scores]:
    """Scores given in advance (the first is before the first step), and what the network was each time."""
    told = iter(losses)

    def validate() -> Scores:
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"val_loss": next(told), "val_accuracy": 0.5}

    return validate


def history(folder: Path) -> list[dict[str, float]]:
    with (folder / "history.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ((9, 3, 1, 2, 5), 2),
        ((9, 8, 7, 6, 5), 4),
        ((1, 2, 3, 4, 5), 0),
        ((9, 2, 2, 2, 2), 1),
        ((9, math.nan, 3, 4, 5), 2),
        ((math.nan, 9, 3, 4, 5), 2),
    ],
)
@pytest.mark.parametrize("ema", [0, 0.9])
def test_the_best_epoch_is_kept(tmp_path: Path, losses: Sequence[float], best: int, ema: float) -> None:
    model, seen = network(), list[dict[str, Tensor]]()
    found = run(tmp_path, make(ema=ema), model, scripted(model, losses, seen))
    assert found == Best(best, 4, {"val_loss": losses[best], "val_accuracy": 0.5})
    assert len(seen) == 5
    assert same(model.state_dict(), seen[best]), "to the bit, batch norm's statistics too"
    assert not same(model.state_dict(), seen[(best + 1) % 5])
    assert not model.training
    assert [row["val_loss"] for row in history(tmp_path)] == pytest.approx(list(losses[1:]), nan_ok=True)


@pytest.mark.parametrize(
    ("losses", "patience", "epochs", "best"),
    [
        ((9, 5, 6, 7, 1, 1, 1, 1), 2, 3, 1),
        ((9, 5, 6, 4, 7, 7, 7, 7), 2, 5, 3),
        ((9, 9, 9, 9, 9, 9, 9, 9), 3, 3, 0),
        ((9, 5, 6, 7, 8, 9, 9, 1), 0, 7, 7),
        ((9, 8, 7, 6, 5, 4, 3, 2), 1, 7, 7),
    ],
)
def test_early_stopping(tmp_path: Path, losses: Sequence[float], patience: int, epochs: int, best: int) -> None:
    model = network()
    found = run(tmp_path, make(epochs=7, patience=patience), model, scripted(model, losses, []))
    assert (found.epoch, found.epochs) == (best, epochs)
    assert len(history(tmp_path)) == epochs


def test_auto_goes_on_until_nothing_better_comes(tmp_path: Path) -> None:
    model = network()
    losses = [9, 8, 7, 6.0] + [6.5] * AUTO_EPOCHS
    found = run(tmp_path, make(epochs="auto"), model, scripted(model, losses, []))
    assert (found.epoch, found.epochs) == (3, 3 + AUTO_PATIENCE)
    model = network()
    found = run(tmp_path / "own", make(epochs="auto", patience=2), model, scripted(model, losses, []))
    assert (found.epoch, found.epochs) == (3, 3 + 2)


def test_auto_ends(tmp_path: Path) -> None:
    model = network()
    falling = [100.0 - number for number in range(AUTO_EPOCHS + 9)]
    assert run(tmp_path, make(epochs="auto"), model, scripted(model, falling, [])).epochs == AUTO_EPOCHS
    assert history(tmp_path)[-1]["lr"] < 0.001, "the rate has fallen by then"


def learned(folder: Path, params: FitParams, inputs: Tensor, parts: Sequence[int]) -> list[Tensor]:
    """The weights of a linear layer after one epoch on pictures in batches of these sizes."""
    torch.manual_seed(0)
    model = nn.Linear(5, 2)
    targets = torch.arange(len(inputs)) % 2
    fit(
        model,
        [Group(list(model.parameters()))],
        batches=lambda epoch, first: zip(
            torch.split(inputs, list(parts)), torch.split(targets, list(parts)), strict=True
        ),
        steps=len(parts),
        loss=F.cross_entropy,
        validate=scripted(model, (2, 1), []),
        params=params,
        history=folder / "history.csv",
        what="train-head",
        pictures=lambda epoch, batch: [],
        checkpoints=Checkpoints(folder / "checkpoints"),
    )
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("parts", [(4, 4, 4), (2, 5, 5), (6, 6)])
def test_gathered_batches_are_one_large_batch(tmp_path: Path, parts: Sequence[int]) -> None:
    """Of other sizes too, and when the epoch ends before enough are gathered."""
    inputs = torch.randn(12, 5, generator=torch.Generator().manual_seed(2))
    params = make(epochs=1, warmup_epochs=0, weight_decay=0.1)
    whole = learned(tmp_path / "whole", params, inputs, [12])
    # Constant but for the schedule: a step's rate is that of its last batch.
    gathered = params.model_copy(update={"accumulate": 3})
    flat = params.lr * schedule(len(parts) - 1, len(parts), params)
    found = learned(tmp_path / "parts", gathered.model_copy(update={"lr": params.lr * params.lr / flat}), inputs, parts)
    for one, other in zip(whole, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_long_gradient_is_cut_to_the_norm_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    step = AdamW.step

    def watched(self: AdamW, rate: float) -> None:
        grads = [p.grad for group in self.groups for p in group.parameters if p.grad is not None]
        seen.append(torch.cat([grad.flatten() for grad in grads]).norm().item())
        step(self, rate)

    monkeypatch.setattr(AdamW, "step", watched)
    inputs = 50 * torch.randn(12, 5, generator=torch.Generator().manual_seed(2))
    learned(tmp_path / "free", make(epochs=1), inputs, [6, 6])
    free, seen[:] = list(seen), []
    assert min(free) > 1
    learned(tmp_path / "cut", make(epochs=1, clip_norm=0.5), inputs, [6, 6])
    assert seen == pytest.approx([0.5, 0.5], rel=1e-3)
    seen.clear()
    learned(tmp_path / "high", make(epochs=1, clip_norm=1e6), inputs, [6, 6])
    assert seen[0] == pytest.approx(free[0]), "a short one is left alone"


def test_what_is_frozen_at_the_beginning_moves_once_it_is_freed(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2))
    seen: list[dict[str, Tensor]] = []

    def begin(epoch: int) -> None:
        model[0].requires_grad_(epoch > 2)

    fit(
        model,
        [Group(list(model.parameters()))],
        batches=lambda epoch, first: iter([(torch.randn(16, 5), torch.arange(16) % 2)]),
        steps=1,
        loss=F.cross_entropy,
        validate=scripted(model, (4, 3, 2, 1), seen),
        params=make(epochs=3, weight_decay=0.1, ema=0.5),
        history=tmp_path / "history.csv",
        what="train-head",
        pictures=lambda epoch, batch: [],
        checkpoints=Checkpoints(tmp_path / "checkpoints"),
        begin=begin,
    )
    first = [weights["0.weight"] for weights in seen]
    assert torch.equal(first[0], first[1])
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[3])
    assert not torch.equal(seen[0]["1.weight"], seen[1]["1.weight"])


def test_it_learns_and_the_history_says_how(tmp_path: Path) -> None:
    found = run(tmp_path, make(epochs=12, warmup_epochs=1), network())
    rows = history(tmp_path)
    assert list(rows[0]) == ["epoch", "lr", "train_loss", "val_loss", "val_accuracy"]
    assert [row["epoch"] for row in rows] == list(range(1, 13))
    assert rows[-1]["train_loss"] < 0.5 * rows[0]["train_loss"]
    assert found.scores["val_loss"] == pytest.approx(min(row["val_loss"] for row in rows), rel=1e-5)


def test_by_hand() -> None:
    params = make(epochs=4, warmup_epochs=1)
    assert [schedule(step, 3, params) for step in range(3)] == [1 / 4, 2 / 4, 3 / 4]
    assert schedule(3, 3, params) == 1
    assert schedule(3 + 3, 3, params) == pytest.approx(0.5 * (1 + math.cos(math.pi / 3)))
    assert schedule(7, 3, params) == pytest.approx(0.5 * (1 + math.cos(math.pi * 4 / 9)))
    assert schedule(11, 3, params) == pytest.approx(0.5 * (1 + math.cos(math.pi * 8 / 9)))
    assert schedule(12, 3, params) == pytest.approx(0, abs=1e-12)
    assert schedule(0, 3, make(warmup_epochs=0)) == 1


@given(st.integers(1, 30), st.integers(1, 20), st.floats(0, 40))
@settings(max_examples=60)
def test_the_rate_climbs_then_falls_and_stays_between_nothing_and_all(epochs: int, steps: int, warmup: float) -> None:
    params = make(epochs=epochs, warmup_epochs=warmup)
    rates = [schedule(step, steps, params) for step in range(epochs * steps)]
    assert all(0 < rate <= 1 for rate in rates)
    top = math.ceil(warmup * steps)
    assert all(one < other for one, other in itertools.pairwise(rates[:top]))
    assert all(one >= other for one, other in itertools.pairwise(rates[top:]))


def test_the_rate_in_the_history_is_that_of_the_last_step(tmp_path: Path) -> None:
    params = make()
    run(tmp_path, params, network())
    wanted = [params.lr * schedule(epoch * STEPS - 1, STEPS, params) for epoch in range(1, 5)]
    assert [row["lr"] for row in history(tmp_path)] == pytest.approx(wanted, rel=1e-5)


def test_the_rate_of_a_group_is_its_share(tmp_path: Path) -> None:
    """One step of AdamW moves every weight by about its rate."""
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    first, second = ([*layer.parameters()] for layer in model)
    fit(
        model,
        [Group(first, 0.1), Group(second)],
        batches=lambda epoch, first: iter([(torch.randn(16, 5), torch.arange(16) % 2)]),
        steps=1,
        loss=F.cross_entropy,
        validate=scripted(model, (2, 1), []),
        params=make(epochs=1, lr=0.01),
        history=tmp_path / "history.csv",
        what="train-head",
        pictures=lambda epoch, batch: [],
        checkpoints=Checkpoints(tmp_path / "checkpoints"),
    )
    moved = [(parameter - old).abs().max().item() for parameter, old in zip(model.parameters(), before, strict=True)]
    assert moved == pytest.approx([0.001, 0.001, 0.01, 0.01], rel=0.01)


def test_the_average_follows_the_weights(tmp_path: Path) -> None:
    """What is judged and kept with `ema` is the running average of the steps, worked out here by hand."""
    steps: list[Tensor] = []
    model = nn.Linear(5, 2)
    decay, average = 0.6, model.weight.detach().clone()

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        steps.append(model.weight.detach().clone())  # before this step, so after the one before
        return F.cross_entropy(logits, targets)

    generator = torch.Generator().manual_seed(0)
    data = [(torch.randn(8, 5, generator=generator), torch.arange(8) % 2) for _ in range(20)]
    seen: list[dict[str, Tensor]] = []
    fit(
        model,
        [Group(list(model.parameters()))],
        batches=lambda epoch, first: iter(data[10 * epoch - 10 : 10 * epoch]),
        steps=10,
        loss=loss,
        validate=scripted(model, (3, 2, 1), seen),
        params=make(epochs=2, ema=decay),
        history=tmp_path / "history.csv",
        what="train-head",
        pictures=lambda epoch, batch: [],
        checkpoints=Checkpoints(tmp_path / "checkpoints"),
    )
    for number, weight in enumerate(steps[1:11]):
        average = torch.lerp(average, weight, 1 - min(decay, (number + 1) / (number + 10)))
    torch.testing.assert_close(seen[1]["weight"], average)
    assert not torch.allclose(seen[1]["weight"], steps[10]), "training goes on from the weights, not the average"


@pytest.mark.parametrize(("bad", "epoch", "batch"), [(math.nan, 1, 1), (math.inf, 2, 3), (math.nan, 3, 2)])
def test_a_loss_that_is_no_number_stops_with_its_place(tmp_path: Path, bad: float, epoch: int, batch: int) -> None:
    def spoil(e: int, step: int) -> float:
        return bad if (e, step) == (epoch, batch - 1) else 1.0

    with pytest.raises(UserError) as caught:
        run(tmp_path, make(), network(), spoil=spoil)
    line = str(caught.value)
    assert line.startswith("params.yaml: train_head.lr: 0.05: the loss is nan")
    assert re.search(
        rf"in epoch {epoch}, batch {batch} of 3 \((\d+\.png, ){{3}}\d+\.png and 4 more\); give a lower rate", line
    )
    assert (len(history(tmp_path)) if epoch > 1 else 0) == epoch - 1, "the epochs before are on disk"


@pytest.mark.parametrize("ema", [0, 0.9])
def test_two_runs_equal_bits(tmp_path: Path, ema: float) -> None:
    models = [network(), network()]
    results = [run(tmp_path / str(n), make(ema=ema, weight_decay=0.1), model) for n, model in enumerate(models)]
    assert results[0] == results[1]
    assert same(models[0].state_dict(), models[1].state_dict())
    assert (tmp_path / "0/history.csv").read_bytes() == (tmp_path / "1/history.csv").read_bytes()


def test_frozen_parts_stay_and_their_statistics_too(tmp_path: Path) -> None:
    model = network()
    assert isinstance(model, nn.Sequential)
    for part in (model[0], model[1]):
        part.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seen: list[dict[str, Tensor]] = []
    run(tmp_path, make(weight_decay=0.5), model, scripted(model, (9, 8, 7, 6, 5), seen))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith(("0.", "1.")), name


@given(st.integers(1, 200), st.integers(1, 64), st.integers(0, 5), st.integers(1, 5))
@settings(max_examples=60)
def test_an_epoch_has_every_row_once_in_batches_of_almost_equal_size(
    count: int, batch_size: int, seed: int, epoch: int
) -> None:
    batches = order(count, batch_size, seed, epoch)
    assert sorted(torch.cat(batches).tolist()) == list(range(count))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) - min(sizes) <= 1
    assert len(batches) == steps_of(count, batch_size)
    if count >= 2 and batch_size >= 2:
        assert min(sizes) >= 2, "batch norm cannot do with one row"
    assert all(torch.equal(a, b) for a, b in zip(batches, order(count, batch_size, seed, epoch), strict=True))


def test_every_epoch_and_seed_has_its_own_order() -> None:
    orders = {tuple(torch.cat(order(50, 8, seed, epoch)).tolist()) for seed in range(6) for epoch in range(1, 31)}
    assert len(orders) == 180
