"""The evaluate stage: both models' answers to the test pictures -> metrics, predictions, figures, gallery, report."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from headstart import coco, curves, gallery, plots, report, scores
from headstart.calibration import Answers, Logits, answer
from headstart.files import write_bytes, write_json, write_text
from headstart.params import EvaluateParams
from headstart.source_bias import LabelSources

DIGITS = 6  # beyond them two machines' arithmetic differs, and nobody's conclusions do


@dataclass(frozen=True)
class Exam:
    """The test pictures in the order of the logits, the labels in the order of the classes, and where files lie."""

    root: Path
    images: tuple[coco.Image, ...]
    labels: tuple[str, ...]


def write_evaluation(
    out: Path,
    *,
    exam: Exam,
    head_only: Logits,
    fine_tuned: Logits,
    params: EvaluateParams,
    seed: int,
    histories: Mapping[str, Path],
    facts: report.ReportFacts,
    sources: Sequence[LabelSources] = (),
) -> scores.Evaluation:
    """Write everything the stage leaves under `out`; the same input gives the same bytes.

    metrics.json, predictions.json, plots/ (SVG, and CSV for `dvc plots`), gallery/ (the most confident mistakes of
    the fine-tuned model) and report.html, one file that needs no other. `histories` names the history.csv of each
    training phase, in order; `sources` says how well each label's sources can be told apart.

    Raises:
        UserError: a history is missing or is none, or a test picture that the gallery needs is missing.
    """
    assert [image.label for image in exam.images] == [exam.labels[c] for c in fine_tuned.test_labels]
    past = {stage: curves.read_history(path) for stage, path in histories.items()}
    head, tuned = answer(head_only), answer(fine_tuned)
    evaluation = scores.evaluate(head, tuned, exam.labels, params.bootstrap, seed)
    mistakes = gallery.find(exam.root, exam.images, exam.labels, tuned, params.gallery)
    figures = plots.plots(head, tuned, exam.labels, past)
    clear(out)
    write_json(out / "metrics.json", to_metrics(evaluation, sources))
    write_text(out / "predictions.json", predictions(exam, {"head_only": head, "fine_tuned": tuned}))
    write_plots(out / "plots", figures, curves.tables(tuned, exam.labels))
    gallery.write(out / "gallery", mistakes)
    page = report.render(evaluation, tuned, exam.labels, plots=figures, mistakes=mistakes, facts=facts, sources=sources)
    write_text(out / "report.html", page)
    return evaluation


def clear(out: Path) -> None:
    """DVC clears the folders; a person who calls this twice should not find a mixture."""
    for folder in (out / "plots", out / "gallery"):
        if folder.exists():
            shutil.rmtree(folder)


def write_plots(folder: Path, figures: Mapping[str, plots.Plot], tables: Mapping[str, str]) -> None:
    """The figures as SVG, and the points behind them as CSV for `dvc plots`."""
    for name, text in tables.items():
        write_text(folder / name, text)
    for name, drawn in figures.items():
        write_bytes(folder / f"{name}.svg", drawn.light)


def to_metrics(evaluation: scores.Evaluation, sources: Sequence[LabelSources] = ()) -> dict[str, object]:
    """metrics.json: `test` is the fine-tuned model; for a figure that cannot be had, `<name>_absent` says why.

    `sources` is there only where pictures of several sources were learned from.
    """
    found: dict[str, object] = {
        "test": _metrics(evaluation.fine_tuned),
        "head_only": _metrics(evaluation.head_only),
        "difference": figure("accuracy", evaluation.difference),
    }
    return found | ({"sources": {one.label: _told(one) for one in sources}} if sources else {})


def _told(one: LabelSources) -> dict[str, float | str]:
    told = figure("balanced_accuracy", one.told)
    if not one.compared:
        return {**told, "pictures": sum(one.sources.values())}
    return {**told, "chance": round(1 / len(one.compared), DIGITS), "pictures": sum(one.compared.values())}


def _metrics(model: scores.Scores) -> dict[str, object]:
    figures = {key: value for name, e in model.headline().items() for key, value in figure(name, e).items()}
    per_class = {
        name: {key: round(value, DIGITS) for key, value in asdict(one).items() if value is not None}
        for name, one in model.per_class.items()
    }
    return figures | {
        "temperature": round(model.temperature, DIGITS),
        "pictures": model.pictures,
        "per_class": per_class,
    }


def figure(name: str, estimate: scores.Estimate) -> dict[str, float | str]:
    """A figure and its interval as metrics.json has them; `<name>_absent` where there is none."""
    if estimate.value is None:
        return {f"{name}_absent": estimate.absent}
    values = {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return {key: round(value, DIGITS) for key, value in values.items() if value is not None}


def predictions(exam: Exam, models: Mapping[str, Answers]) -> str:
    """predictions.json, one picture a line so that a diff can be read; probabilities are the calibrated ones."""
    rows = []
    for number, image in enumerate(exam.images):
        row: dict[str, object] = {"file_name": image.file_name, "label": image.label}
        for name, answers in models.items():
            probabilities = answers.calibrated[number].round(DIGITS).tolist()
            row[name] = {
                "predicted": exam.labels[answers.predicted[number]],
                "correct": bool(answers.correct[number]),
                "probabilities": dict(zip(exam.labels, probabilities, strict=True)),
            }
        rows.append(json.dumps(row, ensure_ascii=False))
    return "[\n" + ",\n".join(rows) + "\n]\n"
