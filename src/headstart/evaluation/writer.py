"""What the evaluate stage writes, whichever the task: metrics, predictions, plots, gallery, report."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headstart.base.files import write_bytes, write_json, write_text
from headstart.evaluation.charts import Plot
from headstart.evaluation.gallery import Gallery, write_gallery


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
    """

    metrics: Mapping[str, object]
    predictions: str
    plots: Mapping[str, Plot]
    plot_csvs: Mapping[str, str]
    gallery: Gallery
    report: str


def write_results(out: Path, results: Results) -> None:
    """Write everything the stage leaves in the folder `out`; equal results are equal bytes."""
    for folder in (out / "plots", out / "gallery"):  # DVC clears them; without it an earlier run's files would stay
        if folder.exists():
            shutil.rmtree(folder)
    write_json(out / "metrics.json", results.metrics)
    write_text(out / "predictions.json", results.predictions)
    for name, text in results.plot_csvs.items():
        write_text(out / "plots" / name, text)
    for name, plot in results.plots.items():
        write_bytes(out / f"plots/{name}.svg", plot.light)
    write_gallery(out / "gallery", results.gallery)
    write_text(out / "report.html", results.report)
