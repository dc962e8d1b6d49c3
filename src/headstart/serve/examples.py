"""Test pictures to try on the page: the evaluation's mistakes first, then correct predictions."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from headstart.base.files import read_csv, read_json
from headstart.base.manifest import read_manifest

_MAX_MISTAKES, _MAX_CORRECT = 12, 12  # pictures to try


@dataclass(frozen=True)
class ExampleFile:
    """A test picture to try. `number` counts from 0 and makes its URLs; the rest is as in schema.Example."""

    number: int
    path: Path
    label: str | None
    predicted: str | None
    confidence: float | None
    mistake: str = ""
    credit: str = ""

    @property
    def picture(self) -> str:
        """The relative URL of the picture."""
        return f"examples/{self.number:03d}{self.path.suffix}"

    @property
    def thumbnail(self) -> str:
        """The relative URL of a small JPEG of it."""
        return f"examples/{self.number:03d}-small.jpg"


class _ExampleRow(NamedTuple):
    """A test picture in the evaluation's results; `mistake` as in schema.Example."""

    file_name: str
    label: str | None
    predicted: str | None
    confidence: float | None
    mistake: str = ""


def find_examples(model: Path) -> list[ExampleFile]:
    """Test pictures whose file exists: mistakes of the evaluation's gallery, then correct predictions.

    Args:
        model: the exported model's folder. The evaluation is looked for beside it (stages/evaluate beside
            stages/export), and file names are relative to the folder two levels up, the repository root.

    Returns:
        of a classifier the most confident mistakes, then correct predictions of every label; of a detector the
        gallery's pictures, each once; empty without an evaluation.
    """
    evaluation, root = model.parent / "evaluate", model.resolve().parent.parent
    rows = _detector_examples(evaluation) or _classifier_examples(evaluation)
    existing = [row for row in rows if (root / row.file_name).is_file()]
    credit_lines = _read_credits(model.parent / "split/test.json")
    return [
        ExampleFile(number, root / name, label, predicted, confidence, mistake, credit_lines.get(name, ""))
        for number, (name, label, predicted, confidence, mistake) in enumerate(existing)
    ]


def _read_credits(manifest: Path) -> dict[str, str]:
    """Author and licence of each picture, by its file name."""
    images = read_manifest(manifest).images if manifest.is_file() else ()
    return {image.file_name: ", ".join(filter(None, (image.author, image.license))) for image in images}


def _read_csv_if_exists(path: Path) -> list[dict[str, str]]:
    return read_csv(path) if path.is_file() else []


# ---- classifier --------------------------------------------------------------------------------------------------


def _classifier_examples(evaluation: Path) -> list[_ExampleRow]:
    rows = [_to_example_row(row) for row in _read_predictions(evaluation)]
    by_name = {row.file_name: row for row in rows}
    return [by_name[name] for name in (*_read_mistakes(evaluation), *_pick_correct(rows)) if name in by_name]


def _read_predictions(evaluation: Path) -> list[Any]:
    """predictions.json of a classifier, one row a test picture."""
    path = evaluation / "predictions.json"
    rows = read_json(path) if path.is_file() else []
    return [row for row in rows if isinstance(row, dict) and "probabilities" in row.get("fine_tuned", {})]


def _to_example_row(row: Any) -> _ExampleRow:
    fine_tuned = row["fine_tuned"]
    predicted = fine_tuned["predicted"]
    return _ExampleRow(row["file_name"], row["label"], predicted, fine_tuned["probabilities"][predicted])


def _read_mistakes(evaluation: Path) -> list[str]:
    """File names of the gallery's mistakes, the most confident first."""
    return [row["file_name"] for row in _read_csv_if_exists(evaluation / "gallery/mistakes.csv")][:_MAX_MISTAKES]


def _pick_correct(rows: Sequence[_ExampleRow]) -> list[str]:
    """File names of correct predictions, the labels in turn, so that each label gets its share."""
    rank: Counter[str] = Counter()
    ranked = []
    for row in rows:
        if row.label is not None and row.label == row.predicted:
            ranked.append((rank[row.label], row.label, row.file_name))
            rank[row.label] += 1
    return [name for _, _, name in sorted(ranked)[:_MAX_CORRECT]]


# ---- detector ----------------------------------------------------------------------------------------------------


def _detector_examples(evaluation: Path) -> list[_ExampleRow]:
    """The gallery's pictures, each once and with its first mistake; those without a mistake last."""
    rows: dict[str, _ExampleRow] = {}
    for case in _read_csv_if_exists(evaluation / "gallery/cases.csv"):
        confidence = float(case["confidence"]) if case["confidence"] else None
        label, predicted = case["label"] or None, case["predicted"] or None
        row = _ExampleRow(case["file_name"], label, predicted, confidence, _describe_mistake(case))
        rows.setdefault(row.file_name, row)
    return sorted(rows.values(), key=lambda row: not row.mistake)[: _MAX_MISTAKES + _MAX_CORRECT]


def _describe_mistake(case: dict[str, str]) -> str:
    """The page words its list of confusions in the same way (page.js, `describeConfusion`)."""
    if case["kind"] == "hit":
        return ""
    if case["kind"] == "miss":
        return f"{case['label']} missed (false negative)"
    if case["kind"] == "second box":
        return f"second box on {case['label']}, predicted as {case['predicted']}"
    if case["label"]:
        return f"{case['label']} predicted as {case['predicted']}"
    return f"{case['predicted']} on background (false positive)"
