"""The points behind the figures: training histories, ROC, precision-recall, reliability, as CSV that DVC draws too."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn import metrics

from headstart.calibration import BINS, Answers, Floats, Ints, confidence_bin
from headstart.errors import UserError, missing_file

_GRID = np.linspace(0, 1, 101)  # where the curves of several classes are averaged


@dataclass(frozen=True)
class History:
    """history.csv of a training stage, one value an epoch. `val_score` is what `score` names."""

    epoch: tuple[float, ...]
    train_loss: tuple[float, ...]
    val_loss: tuple[float, ...]
    val_score: tuple[float, ...]
    lr: tuple[float, ...]
    score: str = "accuracy"


@dataclass(frozen=True)
class Bins:
    """The bins of confidence that hold a picture: mean confidence, share of right answers, number of pictures."""

    confidence: Floats
    accuracy: Floats
    pictures: Ints


def read_history(path: Path, score: str = "accuracy") -> History:
    """Read a training stage's history.csv; `score` is accuracy, or AP50 for a detector.

    Raises:
        UserError: the file is missing, empty, lacks a column, or holds what is no number.
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


def roc(answers: Answers) -> tuple[Floats, Floats]:
    """False and true positive rates: of the last of two classes, else the mean curve over the classes.

    Empty where no class has both pictures of its own and of others.
    """
    found = [metrics.roc_curve(answers.labels == c, answers.raw[:, c]) for c in _drawable(answers)]
    return _mean([(fpr, tpr) for fpr, tpr, _ in found])


def precision_recall(answers: Answers) -> tuple[Floats, Floats]:
    """Recall and precision, as `roc`."""
    found = [metrics.precision_recall_curve(answers.labels == c, answers.raw[:, c]) for c in _drawable(answers)]
    return _mean([(recall[::-1], precision[::-1]) for precision, recall, _ in found])


def _drawable(answers: Answers) -> list[int]:
    classes = range(1 if answers.raw.shape[1] == 2 else 0, answers.raw.shape[1])
    return [c for c in classes if 0 < np.count_nonzero(answers.labels == c) < len(answers.labels)]


def _mean(curves: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    if not curves:
        return np.empty(0), np.empty(0)
    if len(curves) == 1:
        return curves[0]
    return _GRID, np.mean([np.interp(_GRID, x, y) for x, y in curves], axis=0)


def calibration_bins(answers: Answers, probabilities: Floats) -> Bins:
    """The points of the reliability diagram (Guo et al. 2017), over the bins of ECE."""
    confidence = probabilities.max(axis=1)
    number = confidence_bin(confidence)
    pictures = np.bincount(number, minlength=BINS)
    held = pictures > 0
    sums = [np.bincount(number, weights=values, minlength=BINS)[held] for values in (confidence, answers.correct)]
    return Bins(sums[0] / pictures[held], sums[1] / pictures[held], pictures[held])


def tables(answers: Answers, names: Sequence[str]) -> dict[str, str]:
    """CSV texts by file name for `dvc plots`: of the fine-tuned model, reliability calibrated."""
    bins = calibration_bins(answers, answers.calibrated)
    pairs = [(names[actual], names[said]) for actual, said in zip(answers.labels, answers.predicted, strict=True)]
    return {
        "confusion.csv": table(("actual", "predicted"), pairs),
        "roc.csv": table(("fpr", "tpr"), np.stack(roc(answers), axis=1).round(6).tolist()),
        "precision-recall.csv": points(*precision_recall(answers)),
        "reliability.csv": table(
            ("confidence", "accuracy", "pictures"),
            zip(
                bins.confidence.round(6).tolist(), bins.accuracy.round(6).tolist(), bins.pictures.tolist(), strict=True
            ),
        ),
    }


def points(recall: Floats, precision: Floats) -> str:
    """precision-recall.csv, for which dvc.yaml has one plot of both tasks."""
    return table(("recall", "precision"), np.stack([recall, precision], axis=1).round(6).tolist())


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV with a header and one line feed a row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
