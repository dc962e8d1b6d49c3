"""Options that the rest of params.yaml makes meaningless. They are refused: ignored in silence, they would mislead."""

from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

if TYPE_CHECKING:
    from headstart.params.root import Params

# Key -> the values that switch it off; the first one is what an error proposes.
_DETECTOR_ONLY: Mapping[str, tuple[Any, ...]] = {
    "model.detector": ("",),
    "model.tiles": (None,),
    "model.pyramid": (256,),
    "model.class_agnostic_nms": ("auto",),
    "augment.mosaic": (0,),
}
_NO_OFF_VALUE = ("model.pyramid", "model.tiles")
_CLASSIFIER_ONLY: Mapping[str, tuple[Any, ...]] = {
    "model.head.hidden": ((),),  # before `kind`, which follows from it
    "model.head.kind": ("linear",),
    "model.head.features": ("last",),
    "model.head.dropout": (0, 0.2),  # 0.2: the default
    "model.head.batch_norm": (False,),
    "train_head.label_smoothing": (0,),
    "fine_tune.label_smoothing": (0,),
    "train_head.sampling": ("shuffled",),
    "fine_tune.sampling": ("shuffled",),
    "fine_tune.cache_frozen": (False,),
    "fine_tune.mixup": (0,),
    "fine_tune.cutmix": (0,),
    "fine_tune.keep": ("lowest",),
    "evaluate.folds": (0,),
    "evaluate.confidence": (0.9,),
    "evaluate.folds_fine_tune": (False,),
}


def find_ignored_option(params: "Params") -> str | None:
    """The first option that is set and would have no effect, as `key: value: problem; fix`; None: there is none."""
    return next(_ignored_options(params), None)


def _ignored_options(params: "Params") -> Iterator[str]:
    model, augment, fine_tune = params.model, params.augment, params.fine_tune
    other_task = "detect" if params.task == "classify" else "classify"
    for key, off_values in (_DETECTOR_ONLY if other_task == "detect" else _CLASSIFIER_ONLY).items():
        if (value := attrgetter(key)(params)) not in off_values:
            fix = "take it out" if key in _NO_OFF_VALUE else f"give {_as_yaml(off_values[0])}, or take it out"
            yield f"{key}: {_as_yaml(value)}: only for task: {other_task}; {fix}"
    if model.tiles and model.resize != "squash":
        yield f"model.resize: {model.resize}: a tile is square, and nothing is cut off or added; give squash"
    if model.is_complete_detector and model.pyramid not in _DETECTOR_ONLY["model.pyramid"]:
        yield f"model.pyramid: {model.pyramid}: {model.detector} has a pyramid of its own; take it out"
    # A schedule (`unfreeze`) ends at freeze_depth: with -1 it unfreezes nothing either.
    if fine_tune.freeze_depth == -1 and fine_tune.layer_decay != 1:
        yield (
            f"fine_tune.layer_decay: {fine_tune.layer_decay:g}: with freeze_depth: -1 no block of the backbone trains; "
            "give 1, or another freeze_depth"
        )
    if params.evaluate.folds_fine_tune and not params.evaluate.folds:
        yield "evaluate.folds_fine_tune: true: with folds: 0 there are no folds; give evaluate.folds: 5, or false"
    if fine_tune.cache_frozen and not augment.copies and any(value for key, value in augment if key != "copies"):
        yield (
            "fine_tune.cache_frozen: true: with augment.copies: 0 this is no augmentation at all, for cache_frozen "
            "trains on stored copies alone; give augment.copies: 1 or more, or cache_frozen: false"
        )


def _as_yaml(value: object) -> str:
    if isinstance(value, BaseModel):
        return str(value.model_dump())
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else repr(value)
