"""What the evaluate stage writes, whichever the task: metrics, predictions, plots, gallery, report."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headstart.base.files import write_bytes, write_json, write_text
from headstart.evaluation.charts import Plot
from headstart.evaluation.gallery import Gallery, write_gallery
from headstart.models import answer_rules
from headstart.models.answer_rules import NO_RULES

NO_OUT_OF_FOLD = "[]\n"


@dataclass(frozen=True)
class Results:
    """The contents of stages/evaluate.

    Attributes:
        metrics: metrics.json.
        predictions: the text of predictions.json.
        plots: by file stem, written as plots/*.svg in the light colours.
        plot_csvs: texts of plots/*.csv by file name, for `dvc plots`.
        gallery: gallery/.
        report: report.html.
        lead: what the stage's line begins with, before the figure of the test set.
        answer_rules: the content of unknown.safetensors, which a classifier's export reads.
        out_of_fold: the text of out-of-fold.json; an empty list without cross-validation.
    """

    metrics: Mapping[str, object]
    predictions: str
    plots: Mapping[str, Plot]
    plot_csvs: Mapping[str, str]
    gallery: Gallery
    report: str
    lead: str = ""
    out_of_fold: str = NO_OUT_OF_FOLD
    answer_rules: bytes = NO_RULES


def write_results(out: Path, results: Results) -> None:
    """Write everything the stage leaves in the folder `out`; equal results are equal bytes."""
    for folder in (out / "plots", out / "gallery"):  # DVC clears them; without it an earlier run's files would stay
        if folder.exists():
            shutil.rmtree(folder)
    write_json(out / "metrics.json", results.metrics)
    write_text(out / "predictions.json", results.predictions)
    write_text(out / "out-of-fold.json", results.out_of_fold)
    write_bytes(out / answer_rules.FILE_NAME, results.answer_rules)
    for name, text in results.plot_csvs.items():
        write_text(out / "plots" / name, text)
    for name, plot in results.plots.items():
        write_bytes(out / f"plots/{name}.svg", plot.light)
    write_gallery(out / "gallery", results.gallery)
    write_text(out / "report.html", results.report)
