"""Figures of a detector's exam, and the points behind them as CSV that DVC draws too."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from headstart.calibration import Floats, Ints
from headstart.curves import History, points, table
from headstart.draw import shorten
from headstart.matches import Matches
from headstart.outcomes import BACKGROUND
from headstart.plots import FIRST, SECOND, Plot, lines, matrix, plot, training_curves
from headstart.threshold import Sweep, Threshold

_PANELS = 24  # classes that get a curve of their own in the figure
_RECALLS = np.linspace(0, 1, 101)


def plots(
    head_only: Matches,
    fine_tuned: Matches,
    names: Sequence[str],
    *,
    confusion: Ints,
    val: Sweep,
    threshold: Threshold,
    histories: Mapping[str, History],
) -> dict[str, Plot]:
    """All figures by file stem. Those that the pictures do not allow are left out."""
    right, total = int(np.trace(confusion)), int(confusion.sum())
    alt = (
        f"Confusion matrix: {right} boxes found and called right, {total - right} missed, false or called wrong. "
        "The last row holds what was found where nothing is, the last column what was missed."
    )
    title = "Confusion matrix of the fine-tuned model"
    made = {"confusion": matrix(title, alt, confusion, (*names, BACKGROUND))}
    models = {"fine-tuned": fine_tuned, "head only": head_only}
    curves = {name: curve for name, model in models.items() if (curve := mean_curve(model)) is not None}
    if len(curves) == len(models):
        whom = f"of “{names[0]}”" if len(names) == 1 else "mean over the labels"
        made["precision-recall"] = lines(
            f"Precision and recall at IoU 0.5, {whom}",
            {name: (_RECALLS, curve) for name, curve in curves.items()},
            "recall: share of the boxes found",
            "precision: share of what was found that is right",
        )
        if len(names) > 1:
            made["precision-recall-labels"] = _panels(head_only, fine_tuned, names)
    if len(val.confidence):
        made["threshold"] = lines(
            "What a threshold gives, on the validation pictures",
            {"precision": (val.confidence, val.precision), "recall": (val.confidence, val.recall)},
            "confidence from which on a box counts",
            "share",
            mark=(f"chosen: {threshold.value:.2f}", threshold.value),
        )
    return made | training_curves(histories)


def mean_curve(matches: Matches) -> Floats | None:
    """Precision at IoU 0.5 and 101 recalls, mean over the classes that have boxes; None where none has."""
    there = matches.precision[0].min(axis=0) >= 0
    curve: Floats = matches.precision[0][:, there]
    return curve.mean(axis=1) if there.any() else None


def _panels(head_only: Matches, fine_tuned: Matches, names: Sequence[str]) -> Plot:
    """A small figure for each label that has boxes; of many labels those with most boxes."""
    boxes = np.array([one.boxes.sum() for one in fine_tuned.classes])
    shown = sorted(np.argsort(-boxes, kind="stable")[: min(_PANELS, np.count_nonzero(boxes))].tolist())
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)

    def draw(figure: Figure) -> None:
        for place, k in enumerate(shown):
            axes = figure.add_subplot(rows, columns, place + 1, xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
            axes.plot(_RECALLS, fine_tuned.precision[0, :, k], "-", color=FIRST, label="fine-tuned")
            axes.plot(_RECALLS, head_only.precision[0, :, k], "--", color=SECOND, label="head only")
            axes.set_title(f"{shorten(names[k])} ({boxes[k]})", fontsize=9)
            axes.set_xticks([0, 0.5, 1])
            axes.set_yticks([0, 0.5, 1])
            if place == 0:
                axes.legend(loc="lower left", fontsize=8)

    left_out = np.count_nonzero(boxes) - len(shown)
    more = f", the {len(shown)} with most boxes" if left_out else ""
    alt = f"Precision (up) against recall (across) at IoU 0.5 for each label{more}; in brackets its boxes."
    title = f"Precision and recall at IoU 0.5, label by label{more}"
    return plot(title, alt, (2.3 * columns + 0.4, 2.1 * rows + 0.3), draw)


def tables(matches: Matches, names: Sequence[str], pairs: Sequence[tuple[int, int]]) -> dict[str, str]:
    """CSV texts by file name for `dvc plots`: the fine-tuned model's confusion at the threshold, and its curves."""
    labels = (*names, BACKGROUND)
    mean = mean_curve(matches)
    rows = [
        (names[k], round(recall, 2), round(precision, 6))
        for k, one in enumerate(matches.classes)
        if one.boxes.any()
        for recall, precision in zip(_RECALLS.tolist(), matches.precision[0, :, k].tolist(), strict=True)
    ]
    return {
        "confusion.csv": table(("actual", "predicted"), [(labels[is_], labels[said]) for is_, said in pairs]),
        "precision-recall.csv": points(*((_RECALLS, mean) if mean is not None else (_RECALLS[:0], _RECALLS[:0]))),
        "precision-recall-labels.csv": table(("label", "recall", "precision"), rows),
    }
