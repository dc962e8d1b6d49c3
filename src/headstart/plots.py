"""Figures of a classifier's exam as SVG, in a light and a dark version, the same bytes on every run."""

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from headstart.calibration import Answers, Floats, Ints
from headstart.curves import History, calibration_bins, precision_recall, roc
from headstart.draw import shorten

_NUMBERED = 40  # up to so many classes each cell of the confusion matrix shows its count


# Paper, ink, lines, and two series in blue and orange of Okabe & Ito's palette, which colour-blind people can tell
# apart; they differ in line style too.
PAPER, INK, LINES, FIRST, SECOND = LIGHT = ("#ffffff", "#1f2328", "#d1d9e0", "#0072b2", "#d55e00")
DARK = ("#151b23", "#e6edf3", "#3d444d", "#56b4e9", "#e69f00")


@dataclass(frozen=True)
class Plot:
    """One figure: SVG for light and dark pages, and what it shows in words for those who cannot see it."""

    title: str
    alt: str
    light: bytes
    dark: bytes


def plots(
    head_only: Answers, fine_tuned: Answers, names: Sequence[str], histories: Mapping[str, History]
) -> dict[str, Plot]:
    """All figures by file stem. Those that the pictures do not allow (a ROC curve of one class) are left out."""
    models = {"fine-tuned": fine_tuned, "head only": head_only}
    made = {"confusion": confusion(fine_tuned, names), "reliability": reliability(fine_tuned)}
    curves = {name: (roc(model), precision_recall(model)) for name, model in models.items()}
    if all(len(x) for pair in curves.values() for x, _ in pair):
        whom = f"of “{names[1]}”" if len(names) == 2 else "mean over the classes"
        rocs = {name: pair[0] for name, pair in curves.items()}
        made["roc"] = lines(
            f"ROC curve, {whom}", rocs, "share of the others wrongly called it", "share of them found", (0, 1)
        )
        recalls = {name: pair[1] for name, pair in curves.items()}
        made["precision-recall"] = lines(
            f"Precision and recall, {whom}", recalls, "recall: share of them found", "precision: share of calls right"
        )
    return made | training_curves(histories)


def training_curves(histories: Mapping[str, History]) -> dict[str, Plot]:
    """A figure for each training phase, with losses on the same scale."""
    top = max((max(*h.train_loss, *h.val_loss) for h in histories.values()), default=1.0)
    return {f"curves-{stage}": _training(stage, history, top) for stage, history in histories.items()}


def plot(title: str, alt: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> Plot:
    """A figure of `size` inches, drawn in the light colours; the dark version is the same lines in other colours."""
    light = _svg(size, draw)
    dark = dict(zip(LIGHT, DARK, strict=True))
    recoloured = re.sub(r"((?:fill|stroke): )(#\w{6})", lambda found: found[1] + dark[found[2]], light)
    return Plot(title, alt, light.encode(), recoloured.encode())


def _svg(size: tuple[float, float], draw: Callable[[Figure], None]) -> str:
    """Draw and render without pyplot's global state; no date and fixed ids, so that equal figures are equal bytes."""
    style: dict[Any, Any] = {
        "svg.hashsalt": "headstart",
        "svg.fonttype": "none",  # text stays text: smaller, searchable, and in any script the reader's fonts have
        "text.parse_math": False,  # a label may hold a $
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": LINES,
        "axes.edgecolor": LINES,
        "legend.frameon": False,
    } | dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    with matplotlib.style.context(["default", style]), warnings.catch_warnings():
        # Only the measuring of text lacks the glyph: the reader's browser draws it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def confusion(answers: Answers, names: Sequence[str]) -> Plot:
    """Counts by true and predicted class; the colour is the share of the true class."""
    counts = answers.confusion
    right, wrong = int(np.trace(counts)), int(counts.sum() - np.trace(counts))
    alt = f"Confusion matrix: {right} of {int(counts.sum())} pictures on the diagonal, {wrong} off it."
    return matrix("Confusion matrix of the fine-tuned model", alt, counts, names)


def matrix(title: str, alt: str, counts: Ints, names: Sequence[str]) -> Plot:
    """Counts by what it is (rows) and what was said (columns); the colour is the share of the row."""
    classes = len(names)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    numbered = classes <= _NUMBERED
    side = max(2.6, (0.27 if numbered else 0.16) * classes)
    size = 10 if classes <= 8 else 8 if numbered else 7
    shown = [shorten(name) for name in names]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot(aspect="equal", xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5))
        axes.set(xlabel="the model said", ylabel="it really is")
        axes.set_xticks(range(classes), shown, rotation=0 if classes == 2 else 90, fontsize=size)
        axes.set_yticks(range(classes), shown, fontsize=size)
        axes.grid(visible=False)
        for row, column in np.argwhere(counts):
            # One picture of a thousand is still seen.
            depth = 0.07 + 0.93 * share[row, column]
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=FIRST, alpha=depth, linewidth=0))
            if numbered:
                colour = PAPER if depth > 0.5 else INK
                number = str(counts[row, column])
                axes.text(column, row, number, ha="center", va="center", color=colour, fontsize=size)

    return plot(title, alt, (side + 1.8, side + 1.2), draw)


def reliability(answers: Answers) -> Plot:
    """Share of right answers against stated confidence, before and after calibration, with the pictures in each bin."""
    before, after = (calibration_bins(answers, p) for p in (answers.raw, answers.calibrated))

    def draw(figure: Figure) -> None:
        axes, counts = figure.subplots(2, 1, height_ratios=[4, 1], sharex=True)
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":", label="perfect")
        axes.plot(before.confidence, before.accuracy, "s--", color=SECOND, label="as trained")
        axes.plot(after.confidence, after.accuracy, "o-", color=FIRST, label="calibrated")
        axes.set(ylabel="share that was right", ylim=(-0.02, 1.02), xlim=(0, 1.02))
        axes.legend(loc="best")
        counts.bar(after.confidence, after.pictures, width=0.03, color=FIRST)
        counts.set(xlabel="how sure the model said it was", ylabel="pictures")

    alt = (
        "Reliability diagram: share of right answers against stated confidence, before and after calibration "
        f"(temperature {answers.temperature:.2f}). On the diagonal, confidence can be taken at its word."
    )
    return plot("Confidence and right answers", alt, (4.4, 4.6), draw)


def lines(
    title: str,
    series: Mapping[str, tuple[Floats, Floats]],
    x_label: str,
    y_label: str,
    diagonal: tuple[float, float] | None = None,
    mark: tuple[str, float] | None = None,
) -> Plot:
    """Two curves; `diagonal` is what guessing gives, `mark` a place on the x axis and what it is called."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if diagonal:
            axes.plot(diagonal, diagonal, color=INK, linewidth=0.8, linestyle=":", label="guessing")
        for (name, (x, y)), style, colour in zip(series.items(), ("-", "--"), (FIRST, SECOND), strict=True):
            axes.plot(x, y, style, color=colour, label=name)
        if mark:
            axes.axvline(mark[1], color=INK, linewidth=0.8, linestyle=":", label=mark[0])
        axes.set(xlabel=x_label, ylabel=y_label, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.legend(loc="best")

    alt = f"{title}: {x_label} (across) against {y_label} (up), for {' and '.join(series)}."
    return plot(title, alt, (4.4, 4.0), draw)


def _training(stage: str, history: History, top: float) -> Plot:
    """Loss and score on the same scales for every phase, so that two figures side by side compare."""

    def series(axes: Axes, values: Sequence[float], style: str, colour: str, label: str) -> None:
        axes.plot(history.epoch, values, style, color=colour, label=label, markersize=4)

    def draw(figure: Figure) -> None:
        loss, score, rate = figure.subplots(3, 1, height_ratios=[3, 3, 1.2], sharex=True)
        series(loss, history.train_loss, "s--", SECOND, "training")
        series(loss, history.val_loss, "o-", FIRST, "validation")
        loss.set(ylabel="loss", ylim=(0, top * 1.05))
        loss.legend(loc="best")
        series(score, history.val_score, "o-", FIRST, "validation")
        score.set(ylabel=history.score, ylim=(-0.02, 1.02))
        series(rate, history.lr, "-", INK, "learning rate")
        rate.set(ylabel="rate", xlabel="epoch", ylim=(0, None))
        rate.xaxis.get_major_locator().set_params(integer=True)
        if len(history.epoch) == 1:  # a single point has no scale of its own
            rate.set(xlim=(history.epoch[0] - 1, history.epoch[0] + 1))

    best = max(history.val_score)
    alt = (
        f"Training curves of {stage}, {len(history.epoch)} epochs: validation loss from {history.val_loss[0]:.3f} "
        f"to {history.val_loss[-1]:.3f}, best validation {history.score} {best:.3f}."
    )
    return plot(f"Phase {stage}", alt, (4.4, 5.4), draw)
