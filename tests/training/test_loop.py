"""The loop: best epoch, early stopping, learning-rate schedule, history, and the same bits twice."""

import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.base.errors import UserError
from headstart.params.training import (
    AUTO_ANNEAL_EPOCHS,
    AUTO_EARLY_STOPPING_PATIENCE,
    AUTO_EPOCHS,
    FineTuneParams,
    TrainHeadParams,
)
from headstart.training.checkpoint import Checkpoints
from headstart.training.loop import train_loop
from headstart.training.loop_state import BestEpoch
from headstart.training.optimizer import ParamGroup
from headstart.training.schedule import lr_factor
from training.toy import STEPS, equal, make_network, make_params, read_history, scripted_validation, train


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
def test_the_best_epoch_is_restored(tmp_path: Path, losses: Sequence[float], best: int, ema: float) -> None:
    model, seen = make_network(), list[dict[str, Tensor]]()
    found = train(tmp_path, make_params(ema=ema), model, scripted_validation(model, losses, seen))
    assert found == BestEpoch(best, 4, {"val_loss": losses[best], "val_accuracy": 0.5})
    assert len(seen) == 5
    assert equal(model.state_dict(), seen[best]), "to the bit, batch norm's statistics too"
    assert not equal(model.state_dict(), seen[(best + 1) % 5])
    assert not model.training
    assert [row["val_loss"] for row in read_history(tmp_path)] == pytest.approx(list(losses[1:]), nan_ok=True)


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
    model = make_network()
    found = train(tmp_path, make_params(epochs=7, patience=patience), model, scripted_validation(model, losses, []))
    assert (found.epoch, found.epochs) == (best, epochs)
    assert len(read_history(tmp_path)) == epochs


@pytest.mark.parametrize("patience", [0, 2])
def test_auto_anneals_from_the_best_weights_once_the_loss_falls_no_more(tmp_path: Path, patience: int) -> None:
    model, seen = make_network(), list[dict[str, Tensor]]()
    losses = [9, 8, 7, 6.0] + [6.5] * AUTO_EPOCHS
    params = make_params(epochs="auto", patience=patience, warmup_epochs=1, weight_decay=0.1)
    steps_from: list[float] = []  # the head's bias when each epoch begins

    def spoil(epoch: int, step: int) -> float:
        if not step:
            steps_from.append(model[4].bias[0].item())  # type: ignore[index]
        return 1.0

    found = train(tmp_path, params, model, scripted_validation(model, losses, seen), spoil)
    begun = 3 + (patience or AUTO_EARLY_STOPPING_PATIENCE)
    assert (found.epoch, found.epochs) == (3, begun + AUTO_ANNEAL_EPOCHS)
    assert steps_from[begun] == seen[3]["4.bias"][0].item(), "from the weights of epoch 3"
    assert steps_from[begun] != seen[begun]["4.bias"][0].item()
    rates = [row["lr"] for row in read_history(tmp_path)]
    assert rates[1:begun] == [params.lr] * (begun - 1)
    annealed = rates[begun - 1 :]
    assert all(later < earlier for earlier, later in itertools.pairwise(annealed))
    assert annealed[-1] < 0.02 * params.lr


def test_a_heads_patience_ends_in_annealing_from_the_best_weights(tmp_path: Path) -> None:
    """A number of epochs: the rate falls from what it is when patience is out; it was on its way down already."""
    model, seen = make_network(), list[dict[str, Tensor]]()
    losses = [9, 8, 7, 6.0] + [6.5] * 40
    params = TrainHeadParams(epochs=30, lr=0.05, batch_size=8, patience=2, weight_decay=0)
    found = train(tmp_path, params, model, scripted_validation(model, losses, seen))
    assert (found.epoch, found.epochs) == (3, 5 + AUTO_ANNEAL_EPOCHS)
    rates = [row["lr"] for row in read_history(tmp_path)]
    cosine = [lr_factor(epoch * STEPS - 1, STEPS, params) * 0.05 for epoch in range(1, 31)]
    assert rates[:5] == pytest.approx(cosine[:5], rel=1e-4)
    assert rates[4] > 0.9 * 0.05
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[4:]))
    assert rates[-1] < 0.02 * 0.05 < cosine[9]


@pytest.mark.parametrize(("epochs", "expected"), [(9, 9), (10, 10), (11, 10)])
def test_a_heads_annealing_does_not_exceed_its_epochs(tmp_path: Path, epochs: int, expected: int) -> None:
    model, losses = make_network(), [9, 8, 7, 6.0] + [6.5] * 40
    params = TrainHeadParams(epochs=epochs, lr=0.05, batch_size=8, patience=2, weight_decay=0)
    found = train(tmp_path, params, model, scripted_validation(model, losses, []))
    assert (found.epoch, found.epochs) == (3, expected)
    assert read_history(tmp_path)[-1]["lr"] < 0.02 * 0.05 + 1e-3 * (epochs == 9)


def test_auto_anneals_from_the_present_weights_where_no_epoch_was_better_than_none(tmp_path: Path) -> None:
    model, biases = make_network(), list[float]()
    losses = [5.0] + [6.0] * AUTO_EARLY_STOPPING_PATIENCE + [7.0, 4, 6, 6, 6]
    seen: list[dict[str, Tensor]] = []

    def spoil(epoch: int, step: int) -> float:
        if not step:
            biases.append(model[4].bias[0].item())  # type: ignore[index]
        return 1.0

    found = train(tmp_path, make_params(epochs="auto"), model, scripted_validation(model, losses, seen), spoil)
    assert (found.epoch, found.epochs) == (7, 10)
    begun = AUTO_EARLY_STOPPING_PATIENCE
    assert biases[begun] == seen[begun]["4.bias"][0].item() != seen[0]["4.bias"][0].item()


def test_an_annealed_epoch_may_be_the_best(tmp_path: Path) -> None:
    model = make_network()
    losses = [9, 8] + [8.5] * AUTO_EARLY_STOPPING_PATIENCE + [7, 6, 5, 4, 4.5]
    found = train(tmp_path, make_params(epochs="auto"), model, scripted_validation(model, losses, []))
    assert (found.epoch, found.epochs) == (len(losses) - 2, len(losses) - 1)


def test_auto_ends(tmp_path: Path) -> None:
    model = make_network()
    falling = [100.0 - number for number in range(AUTO_EPOCHS + 9)]
    assert (
        train(tmp_path, make_params(epochs="auto"), model, scripted_validation(model, falling, [])).epochs
        == AUTO_EPOCHS
    )
    rates = [row["lr"] for row in read_history(tmp_path)]
    assert rates[: AUTO_EPOCHS - AUTO_ANNEAL_EPOCHS] == [0.05] * (AUTO_EPOCHS - AUTO_ANNEAL_EPOCHS)
    assert rates[-1] < 0.001, "the rate has fallen by then"


@pytest.mark.parametrize(
    ("losses", "epochs", "best"), [((5, 9, 9, 9, 9, 9, 9, 9), 5, 0), ((5, 9, 9, 9, 4, 9, 9, 9), 6, 4)]
)
def test_patience_counts_from_the_last_unfreeze_on(
    tmp_path: Path, losses: Sequence[float], epochs: int, best: int
) -> None:
    model = make_network()
    schedule = [{"epoch": 0, "depth": 4}, {"epoch": 3, "depth": 1}]
    params = FineTuneParams.model_validate(
        {"epochs": 7, "lr": 0.05, "batch_size": 8, "patience": 2, "freeze_depth": 1, "unfreeze": schedule}
    )
    found = train(tmp_path, params, model, scripted_validation(model, losses, []))
    assert (found.epoch, found.epochs) == (best, epochs)


def test_what_is_frozen_at_the_start_trains_once_it_is_unfrozen(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2))
    seen: list[dict[str, Tensor]] = []

    def unfreeze(epoch: int) -> None:
        model[0].requires_grad_(epoch > 2)

    train_loop(
        model,
        [ParamGroup(list(model.parameters()))],
        batches=lambda epoch, first: iter([(torch.randn(16, 5), torch.arange(16) % 2)]),
        steps=1,
        loss=F.cross_entropy,
        validate=scripted_validation(model, (4, 3, 2, 1), seen),
        params=make_params(epochs=3, weight_decay=0.1, ema=0.5),
        history=tmp_path / "history.csv",
        stage="train-head",
        batch_files=lambda epoch, batch: [],
        checkpoints=Checkpoints(tmp_path / "checkpoints"),
        on_epoch_start=unfreeze,
    )
    first = [weights["0.weight"] for weights in seen]
    assert torch.equal(first[0], first[1])
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[3])
    assert not torch.equal(seen[0]["1.weight"], seen[1]["1.weight"])


def test_it_learns_and_writes_the_history(tmp_path: Path) -> None:
    found = train(tmp_path, make_params(epochs=12, warmup_epochs=1), make_network())
    rows = read_history(tmp_path)
    assert list(rows[0]) == ["epoch", "lr", "train_loss", "val_loss", "val_accuracy"]
    assert [row["epoch"] for row in rows] == list(range(1, 13))
    assert rows[-1]["train_loss"] < 0.5 * rows[0]["train_loss"]
    assert found.metrics["val_loss"] == pytest.approx(min(row["val_loss"] for row in rows), rel=1e-5)


def test_lr_factor_by_hand() -> None:
    params = make_params(epochs=4, warmup_epochs=1)
    assert [lr_factor(step, 3, params) for step in range(3)] == [1 / 4, 2 / 4, 3 / 4]
    assert lr_factor(3, 3, params) == 1
    assert lr_factor(3 + 3, 3, params) == pytest.approx(0.5 * (1 + math.cos(math.pi / 3)))
    assert lr_factor(7, 3, params) == pytest.approx(0.5 * (1 + math.cos(math.pi * 4 / 9)))
    assert lr_factor(11, 3, params) == pytest.approx(0.5 * (1 + math.cos(math.pi * 8 / 9)))
    assert lr_factor(12, 3, params) == pytest.approx(0, abs=1e-12)
    assert lr_factor(0, 3, make_params(warmup_epochs=0)) == 1
    auto = make_params(epochs="auto", warmup_epochs=1)
    assert [lr_factor(step, 3, auto) for step in (0, 2, 3, 140)] == [1 / 4, 3 / 4, 1, 1]
    assert lr_factor(3 * 8, 3, auto, 8) == 1
    assert lr_factor(3 * 8 + 5, 3, auto, 8) == pytest.approx(0.5 * (1 + math.cos(math.pi * 5 / 15)))
    assert lr_factor(3 * 13, 3, auto, 8) == pytest.approx(0, abs=1e-12)
    ten = make_params(epochs=10)
    assert lr_factor(3 * 4, 3, ten, 4) == pytest.approx(lr_factor(3 * 4, 3, ten))
    expected = 0.5 * (1 + math.cos(math.pi * 0.4)) * 0.5 * (1 + math.cos(math.pi * 5 / 15))
    assert lr_factor(3 * 4 + 5, 3, ten, 4) == pytest.approx(expected)


@given(st.integers(1, 30), st.integers(1, 20), st.floats(0, 40))
@settings(max_examples=60)
def test_the_learning_rate_rises_then_falls_between_0_and_1(epochs: int, steps: int, warmup: float) -> None:
    params = make_params(epochs=epochs, warmup_epochs=warmup)
    rates = [lr_factor(step, steps, params) for step in range(epochs * steps)]
    assert all(0 < rate <= 1 for rate in rates)
    top = math.ceil(warmup * steps)
    assert all(one < other for one, other in itertools.pairwise(rates[:top]))
    assert all(one >= other for one, other in itertools.pairwise(rates[top:]))


def test_a_warm_up_in_steps_is_the_same_whatever_an_epoch_has() -> None:
    params = make_params(epochs=4, warmup_epochs=0, warmup_steps=6)
    assert [lr_factor(step, 5, params) for step in range(6)] == [(step + 1) / 7 for step in range(6)]
    assert lr_factor(6, 5, params) == 1
    assert lr_factor(3, 50, params) == 4 / 7


def test_the_learning_rate_in_the_history_is_that_of_the_last_step(tmp_path: Path) -> None:
    params = make_params()
    train(tmp_path, params, make_network())
    expected = [params.lr * lr_factor(epoch * STEPS - 1, STEPS, params) for epoch in range(1, 5)]
    assert [row["lr"] for row in read_history(tmp_path)] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("bad", "epoch", "batch"), [(math.nan, 1, 1), (math.inf, 2, 3), (math.nan, 3, 2)])
def test_a_loss_that_is_not_finite_is_an_error_that_names_the_batch(
    tmp_path: Path, bad: float, epoch: int, batch: int
) -> None:
    def spoil(e: int, step: int) -> float:
        return bad if (e, step) == (epoch, batch - 1) else 1.0

    with pytest.raises(UserError) as caught:
        train(tmp_path, make_params(), make_network(), spoil=spoil)
    line = str(caught.value)
    assert line.startswith("params.yaml: train_head.lr: 0.05: the loss is nan")
    assert re.search(
        rf"in epoch {epoch}, batch {batch} of 3 \((\d+\.png, ){{3}}\d+\.png and 4 more\); give a lower learning rate",
        line,
    )
    assert (len(read_history(tmp_path)) if epoch > 1 else 0) == epoch - 1, "the epochs before are on disk"


@pytest.mark.parametrize("ema", [0, 0.9])
def test_two_runs_equal_bits(tmp_path: Path, ema: float) -> None:
    models = [make_network(), make_network()]
    results = [
        train(tmp_path / str(n), make_params(ema=ema, weight_decay=0.1), model) for n, model in enumerate(models)
    ]
    assert results[0] == results[1]
    assert equal(models[0].state_dict(), models[1].state_dict())
    assert (tmp_path / "0/history.csv").read_bytes() == (tmp_path / "1/history.csv").read_bytes()


def test_frozen_parts_stay_and_their_statistics_too(tmp_path: Path) -> None:
    model = make_network()
    assert isinstance(model, nn.Sequential)
    for part in (model[0], model[1]):
        part.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seen: list[dict[str, Tensor]] = []
    train(tmp_path, make_params(weight_decay=0.5), model, scripted_validation(model, (9, 8, 7, 6, 5), seen))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith(("0.", "1.")), name
