"""The evaluate stage of a detector: both models' boxes -> metrics, predictions, figures, gallery, report."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headstart import box_gallery, box_plots, box_report, box_scores, curves, detections
from headstart import outcomes as outcomes_
from headstart import threshold as threshold_
from headstart.box_scores import BoxEvaluation, BoxScores
from headstart.coco import Manifest
from headstart.detections import Found
from headstart.evaluate import DIGITS, clear, figure, write_plots
from headstart.files import write_json, write_text
from headstart.matches import match
from headstart.params import EvaluateParams
from headstart.report import ReportFacts


@dataclass(frozen=True)
class BoxExam:
    """The val pictures, on which the threshold is chosen, the test pictures, and where files lie."""

    root: Path
    val: Manifest
    test: Manifest


def write_box_evaluation(
    out: Path,
    *,
    exam: BoxExam,
    head_only: Found,
    fine_tuned: Found,
    params: EvaluateParams,
    seed: int,
    histories: Mapping[str, Path],
    facts: ReportFacts,
) -> BoxEvaluation:
    """Write everything the stage leaves under `out`; the same input gives the same bytes.

    metrics.json, predictions.json (the fine-tuned model's boxes on test, as COCO results), plots/ (SVG, and CSV for
    `dvc plots`), gallery/ (misses, false alarms and best hits of the fine-tuned model) and report.html. `histories`
    names the history.csv of each training phase, in order, with a column val_AP50. `facts.counts` are boxes.

    Raises:
        UserError: a history is missing or is none, or a test picture that the gallery needs is missing.
    """
    past = {stage: curves.read_history(path, "AP50") for stage, path in histories.items()}
    names = exam.test.labels()
    head, tuned = (match(exam.test, model.test) for model in (head_only, fine_tuned))
    head_val, tuned_val = (match(exam.val, model.val).classes for model in (head_only, fine_tuned))
    thresholds = [threshold_.choose(classes) for classes in (head_val, tuned_val)]
    evaluation = box_scores.evaluate(
        (head, thresholds[0]),
        (tuned, thresholds[1]),
        names,
        crowds=sum(annotation.iscrowd for annotation in exam.test.annotations),
        resamples=params.bootstrap,
        seed=seed,
    )
    at = thresholds[1].value
    seen = outcomes_.outcomes(exam.test, fine_tuned.test, tuned, at)
    pairs = outcomes_.pairs(exam.test, fine_tuned.test, seen)
    confusion = outcomes_.confusion(pairs, len(names))
    figures = box_plots.plots(
        head,
        tuned,
        names,
        confusion=confusion,
        val=threshold_.sweep(tuned_val),
        threshold=thresholds[1],
        histories=past,
    )
    cases = box_gallery.find(exam.root, exam.test, fine_tuned.test, seen, at, params.gallery)
    clear(out)
    write_json(out / "metrics.json", to_metrics(evaluation))
    detections.write(fine_tuned.test, out / "predictions.json")
    write_plots(out / "plots", figures, box_plots.tables(tuned, names, pairs))
    box_gallery.write(out / "gallery", cases)
    page = box_report.render(evaluation, names, confusion=confusion, plots=figures, cases=cases, facts=facts)
    write_text(out / "report.html", page)
    return evaluation


def to_metrics(evaluation: BoxEvaluation) -> dict[str, object]:
    """metrics.json: `test` is the fine-tuned model; for a figure that cannot be had, `<name>_absent` says why."""
    return {
        "test": _metrics(evaluation.fine_tuned),
        "head_only": _metrics(evaluation.head_only),
        "difference": figure("AP", evaluation.difference),
    }


def _metrics(model: BoxScores) -> dict[str, object]:
    figures = {key: value for name, e in model.figures.items() for key, value in figure(name, e).items()}
    at = {name: round(value, DIGITS) for name, value in vars(model.at_threshold).items() if value is not None}
    per_class = {
        name: {
            key: round(value, DIGITS)
            for key, value in (("AP", one.ap), ("AP50", one.ap50), ("boxes", one.boxes))
            if value is not None
        }
        for name, one in model.per_class.items()
    }
    counts = {"pictures": model.pictures, "boxes": model.boxes, "crowds": model.crowds}
    return {**figures, "threshold": model.threshold.value, **at, **counts, "per_class": per_class}
