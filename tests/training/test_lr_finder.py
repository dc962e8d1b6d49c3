"""The range test: growing learning rates, a suggestion that a plain loop confirms, and an unchanged stage."""

import csv
import itertools
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

import tiny
from conftest import Project
from headstart import cli, tasks
from headstart.base.errors import UserError
from headstart.training.batches import Batch
from headstart.training.lr_finder import MAX_LR, MIN_LR, SMOOTHING, STEPS, LrCurve, lr_find, range_test
from headstart.training.optimizer import ParamGroup

TRAININGS = {name: {"train-head": task.train_head, "fine-tune": task.fine_tune} for name, task in tasks.TASKS.items()}


RATES = [MIN_LR * (MAX_LR / MIN_LR) ** (step / (STEPS - 1)) for step in range(STEPS)]


def curve_of(losses: list[float]) -> LrCurve:
    """The curve of a range test whose batches had these losses."""
    averages = itertools.accumulate(
        losses, lambda average, loss: SMOOTHING * average + (1 - SMOOTHING) * loss, initial=0.0
    )
    smoothed = [average / (1 - SMOOTHING**n) for n, average in enumerate(averages) if n]
    return LrCurve(RATES[: len(losses)], losses, smoothed)


def noisy(losses: list[float], seed: int, size: float) -> list[float]:
    noise = torch.randn(len(losses), generator=torch.Generator().manual_seed(seed)) * size
    return [loss + more for loss, more in zip(losses, noise.tolist(), strict=True)]


def valley(depth: float) -> list[float]:
    """A plateau at 1, a descent round step 60, a blow-up from step 80 on."""
    return [1 - depth / (1 + math.exp((60 - n) / 4)) + 0.02 * max(0, n - 80) ** 2 for n in range(STEPS)]


def test_noise_alone_gives_no_suggestion() -> None:
    found = [curve_of(noisy([0.4] * STEPS, seed, 0.1)).suggestion() for seed in range(200)]
    assert sum(rate is not None for rate in found) <= 1


def test_noise_before_a_blow_up_gives_no_suggestion() -> None:
    found = [curve_of(noisy(valley(0), seed, 0.1)).suggestion() for seed in range(200)]
    assert sum(rate is not None for rate in found) <= 1


@pytest.mark.parametrize("depth", [0.4, 0.6])
def test_the_suggestion_is_in_the_descent_not_in_the_noise_before_it(depth: float) -> None:
    for seed in range(200):
        rate = curve_of(noisy(valley(depth), seed, 0.1)).suggestion()
        assert rate is not None
        assert RATES[52] < rate < RATES[75], seed


def test_a_leap_at_the_left_edge_is_no_descent() -> None:
    losses = noisy(valley(0.5), 3, 0.1)
    losses[:3] = [3, 2.5, 2]
    rate = curve_of(losses).suggestion()
    assert rate is not None
    assert RATES[52] < rate < RATES[75]


def test_a_loss_that_falls_all_the_way_rises_or_stays() -> None:
    rate = curve_of([2 - n / STEPS for n in range(STEPS)]).suggestion()
    assert rate is not None
    assert RATES[45] < rate < RATES[65]
    assert curve_of([1 + n / STEPS for n in range(STEPS)]).suggestion() is None
    assert curve_of([1.0] * STEPS).suggestion() is None
    assert curve_of([1.0, 0.5]).suggestion() is None
    assert curve_of([]).suggestion() is None


def problem(seed: int) -> tuple[nn.Module, Iterator[Batch]]:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(64) % 2
    inputs = torch.randn(64, 10, generator=generator) + 0.7 * targets[:, None]
    torch.manual_seed(seed)
    return nn.Linear(10, 2), iter([(inputs, targets)] * STEPS)


def test_rates_grow_by_a_factor_until_the_loss_diverges() -> None:
    model, batches = problem(0)
    curve = range_test(
        model, [ParamGroup(list(model.parameters()))], lambda *_: batches, F.cross_entropy, 0, "train-head"
    )
    assert curve.rates[0] == MIN_LR
    factors = [after / before for before, after in zip(curve.rates, curve.rates[1:], strict=False)]
    assert factors == pytest.approx([(MAX_LR / MIN_LR) ** (1 / (STEPS - 1))] * len(factors))
    assert len(curve.rates) == len(curve.losses) == len(curve.smoothed) <= STEPS
    assert curve.smoothed[0] == pytest.approx(curve.losses[0])


def test_the_suggested_rate_learns_more_than_a_hundredth_of_it() -> None:
    model, batches = problem(1)
    curve = range_test(
        model, [ParamGroup(list(model.parameters()))], lambda *_: batches, F.cross_entropy, 0, "train-head"
    )
    rate = curve.suggestion()
    assert rate is not None
    losses = []
    for share in (0.01, 1):
        model, batches = problem(1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate * share, weight_decay=0)
        for inputs, targets in list(batches)[:30]:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            torch.autograd.backward(loss)
            optimizer.step()
        losses.append(loss.item())
    assert losses[1] < 0.9 * losses[0]


@pytest.mark.parametrize("task", ["project", "detect_project"])
@pytest.mark.parametrize("stage", ["train-head", "fine-tune"])
def test_a_stage_is_not_changed(
    stage: str, task: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.training.lr_finder.STEPS", 12)
    made: Project = request.getfixturevalue(task)
    root = tmp_path / "root"
    shutil.copytree(made.root, root)
    before = {path: path.read_bytes() for path in (root / "stages").rglob("*") if path.is_file()}
    tables = []
    for out in (tmp_path / "one", tmp_path / "two"):
        lr_find(stage, made.params, root, out, TRAININGS[made.params.task])
        assert (out / "lr-find.png").read_bytes().startswith(b"\x89PNG")
        tables.append((out / "lr-find.csv").read_text())
    assert tables[0] == tables[1], "the same bits twice"
    rows = list(csv.DictReader(tables[0].splitlines()))
    assert list(rows[0]) == ["lr", "loss", "smoothed_loss"]
    assert len(rows) >= 2
    assert {path: path.read_bytes() for path in (root / "stages").rglob("*") if path.is_file()} == before


def test_another_stage_is_an_error(project: Project, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lr-find split: not a training stage; give train-head or fine-tune"):
        lr_find("split", project.params, project.root, tmp_path, TRAININGS["classify"])


def test_the_command_prints_the_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.params.reader.load_params", lambda _: tiny.make_params())
    monkeypatch.setattr("headstart.training.lr_finder.lr_find", lambda *_: 0.00213)
    output = CliRunner().invoke(cli.app, ["lr-find", "fine-tune"]).output
    assert output == "try fine_tune.lr: 2.1e-03; the curve is in lr-find/lr-find.png\n"


def test_the_command_without_a_clear_slope(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.params.reader.load_params", lambda _: tiny.make_params())
    monkeypatch.setattr("headstart.training.lr_finder.lr_find", lambda *_: None)
    result = CliRunner().invoke(cli.app, ["lr-find", "fine-tune"])
    assert result.exit_code == 0
    assert result.output.startswith("no clear slope: ")
    assert "fine_tune.lr" not in result.output
