"""What a model's folder and the exam beside it say: figures, what gets mistaken for what, pictures to try."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.files import read_json
from headstart.serve.schema import About, Example, Figure, Said

_WRONG, _RIGHT = 12, 12  # answers among the pictures to try
# Of metrics.json, what a visitor asks for first, by the name it is shown under.
_FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "AP": "AP",
    "AP50": "AP at IoU 0.5",
}


@dataclass(frozen=True)
class Sample:
    """A test picture to try. `number` counts from 0 and makes its addresses."""

    number: int
    path: Path
    label: str
    predicted: str
    confidence: float

    @property
    def picture(self) -> str:
        """The address of its file."""
        return f"examples/{self.number:03d}{self.path.suffix}"

    @property
    def thumbnail(self) -> str:
        """The address of a small JPEG of it."""
        return f"examples/{self.number:03d}-small.jpg"


def examples(model: Path) -> list[Sample]:
    """The gallery's mistakes, surest first, then right answers of every label; those whose file is there.

    The exam is looked for beside the model's folder (stages/evaluate beside stages/export); without it: none.
    """
    exam, root = model.parent / "evaluate", model.resolve().parent.parent
    rows = [_row(row) for row in _predictions(exam)]
    by_name = {row[0]: row for row in rows}
    wanted = [*_mistakes(exam), *_right(rows)]
    found = [by_name[name] for name in wanted if name in by_name and (root / name).is_file()]
    return [
        Sample(number, root / name, label, predicted, confidence)
        for number, (name, label, predicted, confidence) in enumerate(found)
    ]


def about(model: Path, found: Sequence[Sample]) -> About:
    """What /model says."""
    labels, exam = read_json(model / "labels.json"), model.parent / "evaluate"
    metrics = read_json(exam / "metrics.json")["test"] if (exam / "metrics.json").is_file() else {}
    card = model / "model_card.md"
    return About(
        task=labels.get("task", "classify"),
        labels=labels["labels"],
        input=labels["input"],
        figures=[
            Figure(name=shown, value=metrics[key], low=metrics[f"{key}_low"], high=metrics[f"{key}_high"])
            for key, shown in _FIGURES.items()
            if key in metrics
        ],
        pictures=metrics.get("pictures", 0),
        said=_said([_row(row) for row in _predictions(exam)]),
        examples=[
            Example(
                picture=one.picture,
                thumbnail=one.thumbnail,
                label=one.label,
                predicted=one.predicted,
                confidence=one.confidence,
            )
            for one in found
        ],
        card=card.read_text(encoding="utf-8") if card.is_file() else "",
    )


_Row = tuple[str, str, str, float]  # file name, label, predicted, confidence


def _predictions(exam: Path) -> list[Any]:
    """The exam's answers about single pictures."""
    path = exam / "predictions.json"
    rows = read_json(path) if path.is_file() else []
    return [row for row in rows if isinstance(row, dict) and "probabilities" in row.get("fine_tuned", {})]


def _row(row: Any) -> _Row:
    told = row["fine_tuned"]
    return row["file_name"], row["label"], told["predicted"], told["probabilities"][told["predicted"]]


def _mistakes(exam: Path) -> list[str]:
    path = exam / "gallery/mistakes.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row["file_name"] for row in csv.DictReader(file)][:_WRONG]


def _right(rows: Sequence[_Row]) -> list[str]:
    """File names of right answers, the labels in turn, so that each has its share."""
    turn: Counter[str] = Counter()
    ranked = []
    for name, label, predicted, _ in rows:
        if label == predicted:
            ranked.append((turn[label], label, name))
            turn[label] += 1
    return [name for _, _, name in sorted(ranked)[:_RIGHT]]


def _said(rows: Sequence[_Row]) -> dict[str, Said]:
    """For each label that was an answer: how often, and what the pictures were, most frequent first."""
    really: dict[str, Counter[str]] = {}
    for _, label, predicted, _ in rows:
        really.setdefault(predicted, Counter())[label] += 1
    return {
        label: Said(times=counts.total(), really=dict(counts.most_common())) for label, counts in sorted(really.items())
    }
