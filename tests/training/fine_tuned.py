"""Fine-tuning the tiny project, for tests: tensors before and after, history, and which tensors a block owns."""

import csv
from pathlib import Path
from typing import Any

from torch import Tensor

import tiny
from headstart.models.file import read_model_file
from tiny import fine_tune


def before_and_after(root: Path, **fine_tuned: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of train-head's and of fine-tune's model file, with these keys of fine_tune changed."""
    if fine_tuned.get("freeze_depth") == -1:
        fine_tuned |= {"layer_decay": 1}  # an option without effect is refused
    fine_tune(tiny.make_params(fine_tune=fine_tuned), root)
    return tuple(read_model_file(root / f"stages/{name}/model.safetensors")[0] for name in ("train-head", "fine-tune"))  # type: ignore[return-value]


def model_and_history(root: Path, **changes: Any) -> list[bytes]:
    """The bytes of fine-tune's model and history.csv, with some params changed."""
    fine_tune(tiny.make_params(**changes), root)
    return [(root / f"stages/fine-tune/{name}").read_bytes() for name in ("model.safetensors", "history.csv")]


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of a history.csv."""
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def modules_of_block(names: tuple[str, ...]) -> set[str]:
    """Modules that own these parameters: their batch norms' statistics belong to the block as well."""
    return {f"trunk.{name.rpartition('.')[0]}" for name in names}
