"""The sections train_head and fine_tune: options that exclude each other, and schedules that cannot be."""

from pathlib import Path

import pytest

from edited_recipe import RECIPE, edit_params, error_line, write_params
from headstart.params.reader import load_params
from headstart.params.root import Params
from headstart.params.training import FineTuneParams, TrainHeadParams


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        (
            "fine_tune.mixup",
            0.2,
            "fine_tune: mixup and cutmix need pictures, and cache_frozen trains on features",
        ),
        (
            "fine_tune.unfreeze",
            [{"epoch": 1, "depth": 11}],
            "fine_tune: unfreeze: the first epoch must be 0",
        ),
        (
            "fine_tune.unfreeze",
            [{"epoch": 0, "depth": 11}, {"epoch": 2, "depth": 12}],
            "fine_tune: unfreeze: each depth must be less than the one before",
        ),
        (
            "fine_tune.unfreeze",
            [{"epoch": 0, "depth": -1}, {"epoch": 2, "depth": 6}],
            "fine_tune: unfreeze: the last depth must be freeze_depth: give 11 there, or freeze_depth: 6",
        ),
        (
            "fine_tune.unfreeze",
            [{"epoch": 0, "depth": -1}, {"epoch": 6, "depth": 11}],
            "fine_tune: unfreeze: epoch 6 never comes: there are 6 epochs",
        ),
        (
            "fine_tune.warmup_steps",
            20,
            "fine_tune: warmup_steps and warmup_epochs are both set; give 0 for one of them",
        ),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, key: str, value: object, line: str) -> None:
    assert error_line(edit_params(tmp_path, {key: value})).startswith(line)


@pytest.mark.parametrize(
    ("edits", "line"),
    [
        (
            {"train_head.batch_size": 1, "model.head.batch_norm": True},
            "train_head.batch_size: 1: model.head.batch_norm: true needs two pictures in a batch; give 2 or more, or "
            "model.head.batch_norm: false",
        ),
        (
            {"fine_tune.batch_size": 1, "model.head.batch_norm": True},
            "fine_tune.batch_size: 1: model.head.batch_norm: true needs two pictures in a batch",
        ),
        (
            {"fine_tune.batch_size": 1, "fine_tune.batch_norm": "update"},
            "fine_tune.batch_size: 1: fine_tune.batch_norm: update needs two pictures in a batch; give 2 or more, or "
            "fine_tune.batch_norm: fixed",
        ),
    ],
)
def test_a_batch_norm_that_trains_needs_two_pictures_in_a_batch(
    tmp_path: Path, edits: dict[str, object], line: str
) -> None:
    assert error_line(edit_params(tmp_path, edits)).startswith(line)


@pytest.mark.parametrize(
    "edits",
    [
        {"train_head.batch_size": 1, "fine_tune.batch_size": 1},
        {"train_head.batch_size": 1, "fine_tune.batch_norm": "update"},
        {
            "fine_tune.batch_size": 1,
            "fine_tune.batch_norm": "update",
            "fine_tune.freeze_depth": -1,
            "fine_tune.layer_decay": 1,
        },
    ],
)
def test_batches_of_one_where_no_batch_norm_trains(tmp_path: Path, edits: dict[str, object]) -> None:
    load_params(edit_params(tmp_path, edits))


def test_both_ways_to_balance_are_one_too_many(tmp_path: Path) -> None:
    text = RECIPE.replace("class_weights: none", "class_weights: balanced", 1)
    text = text.replace("sampling: shuffled", "sampling: balanced", 1)
    assert error_line(write_params(tmp_path, text)).startswith("train_head: sampling and class_weights both")


def test_auto_epochs_have_no_least_number_of_steps(tmp_path: Path) -> None:
    path = edit_params(tmp_path, {"train_head.epochs": "auto", "train_head.min_steps": 100})
    assert error_line(path).startswith("train_head: min_steps: epochs: auto finds its own end; give min_steps: 0")


@pytest.mark.parametrize(("batches", "epochs"), [(10, 50), (11, 46), (100, 5), (101, 5), (124, 5), (200, 5)])
def test_a_small_set_gets_more_epochs(batches: int, epochs: int) -> None:
    section = FineTuneParams(epochs=5, min_steps=500, lr=1, freeze_depth=0)
    assert section.for_batches(batches).max_epochs() == epochs
    assert epochs * batches >= 500


def test_auto_epochs_load_and_come_back_from_plain_values(tmp_path: Path) -> None:
    """The process that records the run gets them as JSON."""
    params = load_params(edit_params(tmp_path, {"train_head.epochs": "auto"}))
    assert params.train_head.epochs == "auto"
    assert Params.model_validate(params.model_dump(mode="json", by_alias=True)) == params


def test_hidden_layers_are_an_mlp_and_nothing_else_is(tmp_path: Path) -> None:
    assert load_params(edit_params(tmp_path, {})).model.head.kind == "linear"
    head = load_params(edit_params(tmp_path, {"model.head.hidden": [8]})).model.head
    assert (head.kind, head.is_fitted) == ("mlp", False)
    assert load_params(edit_params(tmp_path, {"model.head.kind": "kernel"})).model.head.is_fitted
    line = error_line(edit_params(tmp_path, {"model.head.kind": "mlp"}))
    assert line == "model.head: kind: mlp needs hidden layers; give hidden: [64], say, or kind: linear"
    for kind in ("linear", "kernel"):
        line = error_line(edit_params(tmp_path, {"model.head.kind": kind, "model.head.hidden": [8]}))
        assert line == f"model.head: kind: {kind} has no hidden layers; give hidden: [], or kind: mlp"


def test_the_weight_decay_of_a_head_is_a_number_or_auto(tmp_path: Path) -> None:
    section = load_params(edit_params(tmp_path, {"train_head.weight_decay": "auto"})).train_head
    assert section.weight_decay == "auto"
    assert section.for_loop().weight_decay == 0
    section = load_params(edit_params(tmp_path, {"train_head.weight_decay": 0.02})).train_head
    assert section.weight_decay == section.for_loop().weight_decay == 0.02
    assert TrainHeadParams().weight_decay == "auto"
    for value in (-1, "much"):
        assert error_line(edit_params(tmp_path, {"train_head.weight_decay": value})).startswith(
            f"train_head.weight_decay: {value!r}: input should be "
        )
    assert error_line(edit_params(tmp_path, {"fine_tune.weight_decay": "auto"})).startswith("fine_tune.weight_decay: ")


def test_options_of_epochs_that_are_set() -> None:
    assert TrainHeadParams(weight_decay=0.1, label_smoothing=0.1).unused_in_fit() == []
    assert TrainHeadParams(patience=3, epochs=30).unused_in_fit() == ["epochs", "patience"]
