"""The range test: rates that grow, a suggestion that a plain loop confirms, and a stage left as it was."""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

from conftest import Project
from headstart import cli
from headstart.adamw import Group
from headstart.errors import UserError
from headstart.fit import Batch
from headstart.lr_find import HIGHEST, LOWEST, STEPS, Curve, climb, lr_find


def test_where_the_loss_falls_steepest() -> None:
    rates = [10.0**n for n in range(-6, 3)]
    assert Curve(rates, [], [9, 9, 8.9, 8, 4, 3.5, 3.4, 20, 90]).suggested() == pytest.approx(1e-3)
    assert Curve(rates, [], [9, 9, 9, 9, 9, 9, 9, 9, 9]).suggested() is None
    assert Curve(rates[:1], [], [1]).suggested() is None


def problem(seed: int) -> tuple[nn.Module, Iterator[Batch]]:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(64) % 2
    inputs = torch.randn(64, 10, generator=generator) + 0.7 * targets[:, None]
    torch.manual_seed(seed)
    return nn.Linear(10, 2), iter([(inputs, targets)] * STEPS)


def test_rates_grow_by_a_factor_until_the_loss_explodes() -> None:
    model, batches = problem(0)
    curve = climb(model, [Group(list(model.parameters()))], lambda *_: batches, F.cross_entropy, 0, "train-head")
    assert curve.rates[0] == LOWEST
    factors = [after / before for before, after in zip(curve.rates, curve.rates[1:], strict=False)]
    assert factors == pytest.approx([(HIGHEST / LOWEST) ** (1 / (STEPS - 1))] * len(factors))
    assert len(curve.rates) == len(curve.losses) == len(curve.smoothed) <= STEPS
    assert curve.smoothed[0] == pytest.approx(curve.losses[0])


def test_the_rate_suggested_learns_more_than_one_a_hundredth_of_it() -> None:
    model, batches = problem(1)
    curve = climb(model, [Group(list(model.parameters()))], lambda *_: batches, F.cross_entropy, 0, "train-head")
    rate = curve.suggested()
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
def test_a_stage_is_left_as_it_was(
    stage: str, task: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.lr_find.STEPS", 12)
    made: Project = request.getfixturevalue(task)
    root = tmp_path / "root"
    shutil.copytree(made.root, root)
    before = {path: path.read_bytes() for path in (root / "stages").rglob("*") if path.is_file()}
    tables = []
    for out in (tmp_path / "one", tmp_path / "two"):
        lr_find(stage, made.params, root, out)
        assert (out / "lr-find.png").read_bytes().startswith(b"\x89PNG")
        tables.append((out / "lr-find.csv").read_text())
    assert tables[0] == tables[1], "the same bits twice"
    rows = list(csv.DictReader(tables[0].splitlines()))
    assert list(rows[0]) == ["lr", "loss", "smoothed_loss"]
    assert len(rows) >= 2
    assert {path: path.read_bytes() for path in (root / "stages").rglob("*") if path.is_file()} == before


def test_another_stage_is_a_mistake(project: Project, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lr-find split: no training stage; give train-head or fine-tune"):
        lr_find("split", project.params, project.root, tmp_path)


def test_the_command_says_what_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.params_file.load", lambda _: None)
    monkeypatch.setattr("headstart.lr_find.lr_find", lambda *_: 0.00213)
    said = CliRunner().invoke(cli.app, ["lr-find", "fine-tune"]).output
    assert said == "try fine_tune.lr: 2.1e-03; the curve is in lr-find/lr-find.png\n"
