"""Options without effect are refused, each with a line that names key, value and fix; those that are off load."""

from pathlib import Path
from typing import Any

import pytest

from edited_recipe import DETECTOR_RECIPE, RECIPE, edit_params, error_line
from headstart.cli import main
from headstart.params.reader import load_params
from headstart.params.root import Params

COMPLETE = {"model.detector": "ssdlite320_mobilenet_v3_large", "model.backbone": "", "model.weights": "hub"}
AMOUNTS = ("horizontal_flip", "vertical_flip", "rotation", "shift", "zoom", "brightness", "contrast")
ALL_FROZEN = {"fine_tune.freeze_depth": -1, "fine_tune.cache_frozen": False}


@pytest.mark.parametrize(
    ("edits", "line"),
    [
        ({"model.head.hidden": [64, 32]}, "model.head.hidden: [64, 32]: only for task: classify; give []"),
        ({"model.head.kind": "kernel"}, "model.head.kind: 'kernel': only for task: classify; give 'linear'"),
        ({"model.head.features": "blocks"}, "model.head.features: 'blocks': only for task: classify; give 'last'"),
        ({"model.head.dropout": 0.5}, "model.head.dropout: 0.5: only for task: classify; give 0"),
        ({"model.head.batch_norm": True}, "model.head.batch_norm: true: only for task: classify; give false"),
        ({"train_head.label_smoothing": 0.1}, "train_head.label_smoothing: 0.1: only for task: classify; give 0"),
        ({"fine_tune.label_smoothing": 0.1}, "fine_tune.label_smoothing: 0.1: only for task: classify; give 0"),
        (
            {"train_head.sampling": "balanced"},
            "train_head.sampling: 'balanced': only for task: classify; give 'shuffled'",
        ),
        ({"fine_tune.mixup": 1}, "fine_tune.mixup: 1.0: only for task: classify; give 0"),
        ({"fine_tune.cutmix": 0.5}, "fine_tune.cutmix: 0.5: only for task: classify; give 0"),
        ({"fine_tune.keep": "one_se"}, "fine_tune.keep: 'one_se': only for task: classify; give 'lowest'"),
        ({"fine_tune.cache_frozen": True}, "fine_tune.cache_frozen: true: only for task: classify; give false"),
        ({"evaluate.confidence": 0.8}, "evaluate.confidence: 0.8: only for task: classify; give 0.9"),
        ({"evaluate.folds": 5}, "evaluate.folds: 5: only for task: classify; give 0"),
        (
            {"evaluate.folds_fine_tune": True},
            "evaluate.folds_fine_tune: true: only for task: classify; give false",
        ),
        (
            COMPLETE,
            "model.pyramid: 128: ssdlite320_mobilenet_v3_large has a pyramid of its own; take it out",
        ),
        (
            {"fine_tune.freeze_depth": -1},
            "fine_tune.layer_decay: 0.9: with freeze_depth: -1 no block of the backbone trains; give 1, or another",
        ),
    ],
)
def test_a_detectors(tmp_path: Path, edits: dict[str, Any], line: str) -> None:
    assert error_line(edit_params(tmp_path, edits, DETECTOR_RECIPE)).startswith(line)


@pytest.mark.parametrize(
    ("edits", "line"),
    [
        ({"model.detector": "fcos"}, "model.detector: 'fcos': only for task: detect; give ''"),
        ({"augment.mosaic": 0.5}, "augment.mosaic: 0.5: only for task: detect; give 0"),
        ({"model.pyramid": 128}, "model.pyramid: 128: only for task: detect; take it out"),
        (
            {"evaluate.folds_fine_tune": True, "evaluate.folds": 0},
            "evaluate.folds_fine_tune: true: with folds: 0 there are no folds; give evaluate.folds: 5, or false",
        ),
        ({"evaluate.folds": 1}, "evaluate.folds: 1: one fold would leave nothing to learn from; give 0, or 2 to 20"),
        (
            {"model.class_agnostic_nms": True},
            "model.class_agnostic_nms: true: only for task: detect; give 'auto', or take it out",
        ),
        (
            ALL_FROZEN,
            "fine_tune.layer_decay: 0.85: with freeze_depth: -1 no block of the backbone trains; give 1, or another",
        ),
        (
            ALL_FROZEN | {"fine_tune.unfreeze": [{"epoch": 0, "depth": -1}]},
            "fine_tune.layer_decay: 0.85: with freeze_depth: -1 no block of the backbone trains; give 1, or another",
        ),
        (
            {"augment.copies": 0},
            "fine_tune.cache_frozen: true: with augment.copies: 0 this is no augmentation at all, for cache_frozen "
            "trains on stored copies alone; give augment.copies: 1 or more, or cache_frozen: false",
        ),
    ],
)
def test_a_classifiers(tmp_path: Path, edits: dict[str, Any], line: str) -> None:
    assert error_line(edit_params(tmp_path, edits)).startswith(line)


@pytest.mark.parametrize(
    ("recipe", "edits"),
    [
        (DETECTOR_RECIPE, {"model.head": {}}),
        (DETECTOR_RECIPE, {"model.head.dropout": 0}),
        (DETECTOR_RECIPE, COMPLETE | {"model.pyramid": ...}),
        (DETECTOR_RECIPE, {"fine_tune.freeze_depth": -1, "fine_tune.layer_decay": 1}),
        (RECIPE, {"model.pyramid": 256, "augment.mosaic": 0}),
        (RECIPE, ALL_FROZEN | {"fine_tune.layer_decay": 1}),
        (RECIPE, {"evaluate.folds": 20, "evaluate.folds_fine_tune": True}),
        (RECIPE, {"fine_tune.unfreeze": [{"epoch": 0, "depth": -1}, {"epoch": 2, "depth": 11}]}),
        (RECIPE, {"augment.copies": 0, "fine_tune.cache_frozen": False}),
        # Augmentation that is off on purpose: no option is ignored.
        (RECIPE, {"augment.copies": 0} | {f"augment.{name}": 0 for name in AMOUNTS}),
    ],
)
def test_what_has_an_effect_or_is_off_loads_and_comes_back_from_plain_values(
    tmp_path: Path, recipe: str, edits: dict[str, Any]
) -> None:
    """The process that records the run gets them as JSON, defaults included."""
    params = load_params(edit_params(tmp_path, edits, recipe))
    assert Params.model_validate(params.model_dump(mode="json", by_alias=True)) == params


def test_a_command_ends_with_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_params(tmp_path, {"model.pyramid": 128})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["headstart", "split"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert capsys.readouterr().err == ("error: params.yaml: model.pyramid: 128: only for task: detect; take it out\n")
