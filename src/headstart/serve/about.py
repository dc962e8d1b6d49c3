"""What a model's folder and the exam beside it say: figures, what gets mistaken for what, pictures to try."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from headstart import coco
from headstart.files import read_csv, read_json
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
    """A test picture to try. `number` counts from 0 and makes its addresses; the rest is as in schema.Example."""

    number: int
    path: Path
    label: str | None
    predicted: str | None
    confidence: float | None
    fault: str = ""
    credit: str = ""

    @property
    def picture(self) -> str:
        """The address of its file."""
        return f"examples/{self.number:03d}{self.path.suffix}"

    @property
    def thumbnail(self) -> str:
        """The address of a small JPEG of it."""
        return f"examples/{self.number:03d}-small.jpg"


def examples(model: Path) -> list[Sample]:
    """The gallery's mistakes, then right answers; those whose file is there.

    Of a classifier the surest mistakes first, and right answers of every label. The exam is looked for beside the
    model's folder (stages/evaluate beside stages/export); without it: none.
    """
    exam, root = model.parent / "evaluate", model.resolve().parent.parent
    found = _cases(exam) or _answered(exam)
    there = [row for row in found if (root / row.file_name).is_file()]
    credit = _credits(model.parent / "split/test.json")
    return [
        Sample(number, root / name, label, predicted, confidence, fault, credit.get(name, ""))
        for number, (name, label, predicted, confidence, fault) in enumerate(there)
    ]


def about(model: Path, found: Sequence[Sample]) -> About:
    """What /model says."""
    labels, exam = read_json(model / "labels.json"), model.parent / "evaluate"
    metrics = read_json(exam / "metrics.json")["test"] if (exam / "metrics.json").is_file() else {}
    int8 = read_json(model / "parity.json").get("int8", {}) if (model / "parity.json").is_file() else {}
    card = model / "model_card.md"
    return About(
        task=labels["task"],
        labels=labels["labels"],
        input=labels["input"],
        figures=_figures(metrics, int8),
        pictures=metrics.get("pictures", 0),
        said=_said(_pairs(exam)),
        examples=[
            Example(
                picture=one.picture,
                thumbnail=one.thumbnail,
                label=one.label,
                predicted=one.predicted,
                confidence=one.confidence,
                fault=one.fault,
                credit=one.credit,
            )
            for one in found
        ],
        threshold=labels.get("threshold", 0.5),
        card=card.read_text(encoding="utf-8") if card.is_file() else "",
    )


def _figures(metrics: Mapping[str, float], int8: Mapping[str, float]) -> list[Figure]:
    return [
        Figure(
            name=shown,
            value=metrics[key],
            low=metrics[f"{key}_low"],
            high=metrics[f"{key}_high"],
            note=_note(key, int8),
        )
        for key, shown in _FIGURES.items()
        if key in metrics
    ]


def _note(key: str, int8: Mapping[str, float]) -> str:
    """What a figure of the exam, which the model sat in fp32, must say beside it where the served one has 8 bits."""
    if not int8:
        return ""
    if f"{key}_fp32" not in int8:
        return "of the fp32 model"
    lost = int8[f"{key}_fp32"] - int8[key]
    return f"of the fp32 model; int8 {'lost' if lost >= 0 else 'gained'} {abs(lost):.3f} on the same pictures"


def _credits(manifest: Path) -> dict[str, str]:
    """Author and licence of each picture, by its file name."""
    images = coco.read(manifest).images if manifest.is_file() else ()
    return {image.file_name: ", ".join(filter(None, (image.author, image.license))) for image in images}


class _Row(NamedTuple):
    """One test picture as the exam tells of it."""

    file_name: str
    label: str | None
    predicted: str | None
    confidence: float | None
    fault: str = ""


def _answered(exam: Path) -> list[_Row]:
    """A classifier's pictures to try."""
    rows = [_row(row) for row in _predictions(exam)]
    by_name = {row.file_name: row for row in rows}
    return [by_name[name] for name in (*_mistakes(exam), *_right(rows)) if name in by_name]


def _predictions(exam: Path) -> list[Any]:
    """The exam's answers about single pictures."""
    path = exam / "predictions.json"
    rows = read_json(path) if path.is_file() else []
    return [row for row in rows if isinstance(row, dict) and "probabilities" in row.get("fine_tuned", {})]


def _row(row: Any) -> _Row:
    told = row["fine_tuned"]
    return _Row(row["file_name"], row["label"], told["predicted"], told["probabilities"][told["predicted"]])


def _table(path: Path) -> list[dict[str, str]]:
    return read_csv(path) if path.is_file() else []


def _mistakes(exam: Path) -> list[str]:
    return [row["file_name"] for row in _table(exam / "gallery/mistakes.csv")][:_WRONG]


def _right(rows: Sequence[_Row]) -> list[str]:
    """File names of right answers, the labels in turn, so that each has its share."""
    turn: Counter[str] = Counter()
    ranked = []
    for row in rows:
        if row.label is not None and row.label == row.predicted:
            ranked.append((turn[row.label], row.label, row.file_name))
            turn[row.label] += 1
    return [name for _, _, name in sorted(ranked)[:_RIGHT]]


def _cases(exam: Path) -> list[_Row]:
    """A detector's pictures to try: its gallery's, each once and with its first fault, the faultless ones last."""
    found: dict[str, _Row] = {}
    for row in _table(exam / "gallery/cases.csv"):
        sure = float(row["confidence"]) if row["confidence"] else None
        case = _Row(row["file_name"], row["label"] or None, row["predicted"] or None, sure, _fault(row))
        found.setdefault(case.file_name, case)
    return sorted(found.values(), key=lambda case: not case.fault)[: _WRONG + _RIGHT]


def _fault(row: dict[str, str]) -> str:
    if row["kind"] == "hit":
        return ""
    if row["kind"] == "miss":
        return f"misses a box of {row['label']}"
    if row["label"]:
        return f"takes {row['label']} for {row['predicted']}"
    return f"finds {row['predicted']} where nothing is"


def _pairs(exam: Path) -> list[tuple[str, str]]:
    """What was and what was said, of every test picture, or of every box of a detector."""
    rows = _table(exam / "plots/confusion.csv")
    return [(row["actual"], row["predicted"]) for row in rows]


def _said(pairs: Sequence[tuple[str, str]]) -> dict[str, Said]:
    """For each label that was an answer: how often, and what was there really, most frequent first."""
    really: dict[str, Counter[str]] = {}
    for label, predicted in pairs:
        really.setdefault(predicted, Counter())[label] += 1
    return {
        label: Said(times=counts.total(), really=dict(counts.most_common())) for label, counts in sorted(really.items())
    }
