"""Plots of a classifier's evaluation."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from headstart.evaluation.charts import (
    FIRST_COLOUR,
    INK,
    SECOND_COLOUR,
    Plot,
    line_plot,
    matrix_plot,
    render_plot,
    training_curve_plots,
)
from headstart.evaluation.classifier.curves import mean_precision_recall_curve, mean_roc_curve
from headstart.evaluation.history import History
from headstart.metrics.calibration import ClassifierPredictions
from headstart.metrics.calibration_error import reliability_bins


def classifier_plots(
    head_only: ClassifierPredictions,
    fine_tuned: ClassifierPredictions,
    names: Sequence[str],
    histories: Mapping[str, History],
) -> dict[str, Plot]:
    """All plots by file stem; ROC and precision-recall curves only where the test set has more than one class."""
    models = {"fine-tuned": fine_tuned, "head only": head_only}
    plots = {"confusion": confusion_plot(fine_tuned, names), "reliability": reliability_plot(fine_tuned)}
    rocs = {name: mean_roc_curve(model) for name, model in models.items()}
    if all(len(x) for x, _ in rocs.values()):
        subject = f"of “{names[1]}”" if len(names) == 2 else "mean over the classes"
        plots["roc"] = line_plot(
            f"ROC curve, {subject}", rocs, "false positive rate", "true positive rate", diagonal="chance"
        )
        plots["precision-recall"] = line_plot(
            f"Precision-recall curve, {subject}",
            {name: mean_precision_recall_curve(model) for name, model in models.items()},
            "recall",
            "precision",
        )
    return plots | training_curve_plots(histories)


def confusion_plot(predictions: ClassifierPredictions, names: Sequence[str]) -> Plot:
    """Counts of pictures by actual and predicted class."""
    counts = predictions.confusion
    correct, total = int(np.trace(counts)), int(counts.sum())
    alt = f"Confusion matrix: {correct} of {total} pictures on the diagonal, {total - correct} off it."
    return matrix_plot(alt, counts, names)


def reliability_plot(predictions: ClassifierPredictions) -> Plot:
    """Reliability diagram: accuracy by confidence, before and after calibration, and a histogram of confidence."""
    before, after = (reliability_bins(predictions, p) for p in (predictions.raw, predictions.calibrated))

    def draw(figure: Figure) -> None:
        axes, counts = figure.subplots(2, 1, height_ratios=[4, 1], sharex=True)
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":", label="perfect calibration")
        axes.vlines(after.confidence, after.low, after.high, color=INK, alpha=0.35, linewidth=5)
        axes.plot(before.confidence, before.accuracy, "s--", color=SECOND_COLOUR, label="uncalibrated")
        axes.plot(after.confidence, after.accuracy, "o-", color=FIRST_COLOUR, label="calibrated")
        axes.set(ylabel="accuracy", ylim=(-0.02, 1.02), xlim=(0, 1.02))
        axes.legend(loc="best")
        counts.bar(after.confidence, after.pictures, width=0.03, color=FIRST_COLOUR)
        counts.set(xlabel="confidence", ylabel="pictures")

    alt = (
        "Reliability diagram: accuracy against confidence, before and after calibration "
        f"(temperature {predictions.temperature:.2f}). On the diagonal confidence equals accuracy; the bar of a point "
        "is where 95 % of a perfectly calibrated model's would be."
    )
    return render_plot("Reliability diagram", alt, (4.4, 4.6), draw)
