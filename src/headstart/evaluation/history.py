"""history.csv of the training stages: losses, validation score and learning rate, one row an epoch."""

import csv
from dataclasses import dataclass
from pathlib import Path

from headstart.base.errors import UserError, missing_file

TRAINING_STAGES = ("train-head", "fine-tune")


@dataclass(frozen=True)
class History:
    """One value an epoch; `score` names what `val_score` is."""

    epoch: tuple[float, ...]
    train_loss: tuple[float, ...]
    val_loss: tuple[float, ...]
    val_score: tuple[float, ...]
    lr: tuple[float, ...]
    score: str = "accuracy"


def read_histories(root: Path, score: str) -> dict[str, History]:
    """The histories of both training stages, by stage name; arguments and errors as of `read_history`."""
    return {stage: read_history(root / f"stages/{stage}/history.csv", score) for stage in TRAINING_STAGES}


def read_history(path: Path, score: str = "accuracy") -> History:
    """Read a training stage's history.csv.

    Args:
        path: the file.
        score: accuracy of a classifier, AP50 of a detector; the column is `val_<score>`.

    Raises:
        UserError: the file is missing or empty, lacks a column, or a value is not a number.
    """
    names = ["epoch", "train_loss", "val_loss", f"val_{score}", "lr"]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise missing_file(path, "run the stage that writes it: dvc repro") from None
    if not rows or any(name not in rows[0] for name in names):
        raise UserError(f"{path}: expected epochs with columns {', '.join(names)}; run `dvc repro` to make it anew")
    try:
        epoch, train_loss, val_loss, val_score, lr = (tuple(float(row[name]) for row in rows) for name in names)
    except ValueError as error:
        raise UserError(f"{path}: {error}; run `dvc repro` to make it anew") from None
    return History(epoch, train_loss, val_loss, val_score, lr, score)
