"""Plots of a detector's evaluation, and their CSV files."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from headstart.base.arrays import Floats, Ints
from headstart.base.detections import BACKGROUND
from headstart.base.files import csv_text
from headstart.evaluation.charts import (
    FIRST_COLOUR,
    SECOND_COLOUR,
    Plot,
    line_plot,
    matrix_plot,
    render_plot,
    training_curve_plots,
)
from headstart.evaluation.history import History
from headstart.evaluation.plot_csvs import confusion_csv, precision_recall_csv
from headstart.images.draw_boxes import shorten_label
from headstart.metrics.average_precision import RECALL_THRESHOLDS
from headstart.metrics.coco_matching import DetectionMatches
from headstart.metrics.threshold import Threshold, ThresholdSweep

_MAX_PANELS = 24  # labels that get a panel of their own


def detector_plots(
    head_only: DetectionMatches,
    fine_tuned: DetectionMatches,
    names: Sequence[str],
    *,
    confusion: Ints,
    val: ThresholdSweep,
    threshold: Threshold,
    histories: Mapping[str, History],
) -> dict[str, Plot]:
    """All plots by file stem; precision-recall curves only where there are boxes to find.

    Args:
        head_only: matches of the model with the frozen backbone, on test.
        fine_tuned: matches of the fine-tuned model, on test.
        names: of the labels.
        confusion: of the fine-tuned model at the threshold, the background last.
        val: precision and recall of the fine-tuned model by threshold, on val.
        threshold: chosen on val.
        histories: of the training stages.
    """
    plots = {"confusion": _confusion_plot(confusion, names)}
    models = {"fine-tuned": fine_tuned, "head only": head_only}
    curves = {name: curve for name, model in models.items() if (curve := mean_precision_curve(model)) is not None}
    if len(curves) == len(models):
        subject = f"of “{names[0]}”" if len(names) == 1 else "mean over the labels"
        plots["precision-recall"] = line_plot(
            f"Precision-recall curve at IoU 0.5, {subject}",
            {name: (RECALL_THRESHOLDS, curve) for name, curve in curves.items()},
            "recall",
            "precision",
        )
        if len(names) > 1:
            plots["precision-recall-labels"] = _per_class_plot(head_only, fine_tuned, names)
    if len(val.confidence):
        plots["threshold"] = line_plot(
            "Precision and recall on the validation set, by threshold",
            {"precision": (val.confidence, val.precision), "recall": (val.confidence, val.recall)},
            "confidence threshold",
            "precision, recall",
            vertical=(f"chosen: {threshold.value:.2f}", threshold.value),
        )
    return plots | training_curve_plots(histories)


def _confusion_plot(confusion: Ints, names: Sequence[str]) -> Plot:
    true_positives, total = int(np.trace(confusion)), int(confusion.sum())
    alt = (
        f"Confusion matrix: {true_positives} true positives, {total - true_positives} boxes missed, on background or "
        "with a wrong label. The last row holds detections on background, the last column missed boxes."
    )
    return matrix_plot(alt, confusion, (*names, BACKGROUND))


def mean_precision_curve(matches: DetectionMatches) -> Floats | None:
    """Precision at IoU 0.5 and 101 recalls, mean over the classes that have boxes, (101,); None where none has."""
    has_boxes = matches.precision[0].min(axis=0) >= 0
    curves: Floats = matches.precision[0][:, has_boxes]
    return curves.mean(axis=1) if has_boxes.any() else None


def _per_class_plot(head_only: DetectionMatches, fine_tuned: DetectionMatches, names: Sequence[str]) -> Plot:
    """A panel for each label that has boxes; of many labels those with most boxes."""
    boxes = np.array([one.ground_truth_counts.sum() for one in fine_tuned.classes])
    labels = sorted(np.argsort(-boxes, kind="stable")[: min(_MAX_PANELS, np.count_nonzero(boxes))].tolist())
    columns = min(4, len(labels))
    rows = -(-len(labels) // columns)

    def draw(figure: Figure) -> None:
        for position, k in enumerate(labels, start=1):
            axes = figure.add_subplot(rows, columns, position, xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
            axes.plot(RECALL_THRESHOLDS, fine_tuned.precision[0, :, k], "-", color=FIRST_COLOUR, label="fine-tuned")
            axes.plot(RECALL_THRESHOLDS, head_only.precision[0, :, k], "--", color=SECOND_COLOUR, label="head only")
            axes.set_title(f"{shorten_label(names[k])} ({boxes[k]})", fontsize=9)
            axes.set_xticks([0, 0.5, 1])
            axes.set_yticks([0, 0.5, 1])
            if position == 1:
                axes.legend(loc="lower left", fontsize=8)

    left_out = np.count_nonzero(boxes) - len(labels)
    which = f", the {len(labels)} with most boxes" if left_out else ""
    alt = (
        f"Precision (y axis) against recall (x axis) at IoU 0.5 for each label{which}; in brackets its number of boxes."
    )
    title = f"Precision-recall curves at IoU 0.5 by label{which}"
    return render_plot(title, alt, (2.3 * columns + 0.4, 2.1 * rows + 0.3), draw)


def detector_plot_csvs(
    matches: DetectionMatches, names: Sequence[str], pairs: Sequence[tuple[int, int]]
) -> dict[str, str]:
    """CSV texts by file name: the fine-tuned model's confusion at the threshold, and its precision-recall curves."""
    mean = mean_precision_curve(matches)
    recalls = RECALL_THRESHOLDS if mean is not None else RECALL_THRESHOLDS[:0]
    rows = [
        (names[k], round(recall, 2), round(precision, 6))
        for k, one in enumerate(matches.classes)
        if one.ground_truth_counts.any()
        for recall, precision in zip(RECALL_THRESHOLDS.tolist(), matches.precision[0, :, k].tolist(), strict=True)
    ]
    return {
        "confusion.csv": confusion_csv(pairs, (*names, BACKGROUND)),
        "precision-recall.csv": precision_recall_csv(recalls, recalls if mean is None else mean),
        "precision-recall-labels.csv": csv_text(("label", "recall", "precision"), rows),
    }
