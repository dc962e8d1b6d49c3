"""Figures of a classifier's exam as SVG, in a light and a dark version, the same bytes on every run."""

import io
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from headstart.calibration import Answers, Floats
from headstart.curves import History, calibration_bins, precision_recall, roc

_NUMBERED = 40  # up to so many classes each cell of the confusion matrix shows its count


@dataclass(frozen=True)
class Theme:
    """Colours of one version: paper, ink and lines, and two series that colour-blind people can tell apart."""

    paper: str
    ink: str
    lines: str
    first: str
    second: str


# The series are blue and orange of Okabe & Ito's palette, and differ in line style too.
LIGHT = Theme(paper="#ffffff", ink="#1f2328", lines="#d1d9e0", first="#0072b2", second="#d55e00")
DARK = Theme(paper="#151b23", ink="#e6edf3", lines="#3d444d", first="#56b4e9", second="#e69f00")


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
    made = {"confusion": _confusion(fine_tuned, names), "reliability": _reliability(fine_tuned)}
    curves = {name: (roc(model), precision_recall(model)) for name, model in models.items()}
    if all(len(x) for pair in curves.values() for x, _ in pair):
        whom = f"of {names[1]!r}" if len(names) == 2 else "mean over the classes"
        rocs = {name: pair[0] for name, pair in curves.items()}
        made["roc"] = _lines(
            f"ROC curve, {whom}", rocs, "share of the others wrongly called it", "share of them found", (0, 1)
        )
        recalls = {name: pair[1] for name, pair in curves.items()}
        made["precision-recall"] = _lines(
            f"Precision and recall, {whom}", recalls, "recall: share of them found", "precision: share of calls right"
        )
    top = max((max(*h.train_loss, *h.val_loss) for h in histories.values()), default=1.0)
    for stage, history in histories.items():
        made[f"curves-{stage}"] = _training(stage, history, top)
    return made


def _plot(title: str, alt: str, size: tuple[float, float], draw: Callable[[Figure, Theme], None]) -> Plot:
    return Plot(title, alt, _svg(size, LIGHT, draw), _svg(size, DARK, draw))


def _svg(size: tuple[float, float], theme: Theme, draw: Callable[[Figure, Theme], None]) -> bytes:
    """Draw and render without pyplot's global state; no date and fixed ids, so that equal figures are equal bytes."""
    style: dict[Any, Any] = {
        "svg.hashsalt": "headstart",
        "svg.fonttype": "none",  # text stays text: smaller, searchable, and in any script the reader's fonts have
        "text.parse_math": False,  # a label may hold a $
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": theme.lines,
        "axes.edgecolor": theme.lines,
        "axes.facecolor": theme.paper,
        "figure.facecolor": theme.paper,
        "legend.frameon": False,
    } | dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), theme.ink)
    with matplotlib.style.context(["default", style]), warnings.catch_warnings():
        # Only the measuring of text lacks the glyph: the reader's browser draws it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=size, layout="constrained")
        draw(figure, theme)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _confusion(answers: Answers, names: Sequence[str]) -> Plot:
    counts, classes = answers.confusion, len(names)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(2.6, 0.34 * classes), 0.2 * classes + 8)
    shown = [textwrap.shorten(name, 24, placeholder="…") if len(name) > 24 else name for name in names]

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        axes.imshow(share, cmap=LinearSegmentedColormap.from_list("share", [theme.paper, theme.first]), vmin=0, vmax=1)
        axes.set_xticks(range(classes), shown, rotation=0 if classes == 2 else 90)
        axes.set_yticks(range(classes), shown)
        axes.set(xlabel="the model said", ylabel="it really is")
        axes.grid(visible=False)
        if classes <= _NUMBERED:
            for row, column in zip(*np.nonzero(counts), strict=True):
                colour = theme.paper if share[row, column] > 0.5 else theme.ink
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour)

    wrong = int(counts.sum() - np.trace(counts))
    alt = f"Confusion matrix: {int(np.trace(counts))} of {int(counts.sum())} pictures on the diagonal, {wrong} off it."
    return _plot("Confusion matrix of the fine-tuned model", alt, (side + 1.8, side + 1.2), draw)


def _reliability(answers: Answers) -> Plot:
    before, after = (calibration_bins(answers, p) for p in (answers.raw, answers.calibrated))

    def draw(figure: Figure, theme: Theme) -> None:
        axes, counts = figure.subplots(2, 1, height_ratios=[4, 1], sharex=True)
        axes.plot([0, 1], [0, 1], color=theme.ink, linewidth=0.8, linestyle=":", label="perfect")
        axes.plot(before.confidence, before.accuracy, "s--", color=theme.second, label="as trained")
        axes.plot(after.confidence, after.accuracy, "o-", color=theme.first, label="calibrated")
        axes.set(ylabel="share that was right", ylim=(-0.02, 1.02), xlim=(0, 1.02))
        axes.legend(loc="best")
        counts.bar(after.confidence, after.pictures, width=0.03, color=theme.first)
        counts.set(xlabel="how sure the model said it was", ylabel="pictures")

    alt = (
        "Reliability diagram: share of right answers against stated confidence, before and after calibration "
        f"(temperature {answers.temperature:.2f}). On the diagonal, confidence can be taken at its word."
    )
    return _plot("Can its confidence be believed?", alt, (4.4, 4.6), draw)


def _lines(
    title: str,
    series: Mapping[str, tuple[Floats, Floats]],
    x_label: str,
    y_label: str,
    diagonal: tuple[float, float] | None = None,
) -> Plot:
    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.add_subplot()
        if diagonal:
            axes.plot(diagonal, diagonal, color=theme.ink, linewidth=0.8, linestyle=":", label="guessing")
        for (name, (x, y)), style, colour in zip(series.items(), ("-", "--"), (theme.first, theme.second), strict=True):
            axes.plot(x, y, style, color=colour, label=name)
        axes.set(xlabel=x_label, ylabel=y_label, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.legend(loc="best")

    alt = f"{title}: {x_label} (across) against {y_label} (up), for {' and '.join(series)}."
    return _plot(title, alt, (4.4, 4.0), draw)


def _training(stage: str, history: History, top: float) -> Plot:
    """Loss and accuracy on the same scales for every phase, so that two figures side by side compare."""

    def series(axes: Axes, values: Sequence[float], style: str, colour: str, label: str) -> None:
        axes.plot(history.epoch, values, style, color=colour, label=label, markersize=4)

    def draw(figure: Figure, theme: Theme) -> None:
        loss, accuracy, rate = figure.subplots(3, 1, height_ratios=[3, 3, 1.2], sharex=True)
        series(loss, history.train_loss, "s--", theme.second, "training")
        series(loss, history.val_loss, "o-", theme.first, "validation")
        loss.set(ylabel="loss", ylim=(0, top * 1.05))
        loss.legend(loc="best")
        series(accuracy, history.val_accuracy, "o-", theme.first, "validation")
        accuracy.set(ylabel="accuracy", ylim=(-0.02, 1.02))
        series(rate, history.lr, "-", theme.ink, "learning rate")
        rate.set(ylabel="rate", xlabel="epoch", ylim=(0, None))
        rate.xaxis.get_major_locator().set_params(integer=True)

    best = max(history.val_accuracy)
    alt = (
        f"Training curves of {stage}, {len(history.epoch)} epochs: validation loss from {history.val_loss[0]:.3f} "
        f"to {history.val_loss[-1]:.3f}, best validation accuracy {best:.3f}."
    )
    return _plot(f"Training: {stage}", alt, (4.4, 5.4), draw)
