"""Plots as SVG, in a light and a dark version, the same bytes on every run; the kinds that both tasks have."""

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

from headstart.base.arrays import Floats, Ints
from headstart.evaluation.history import History
from headstart.images.draw_boxes import shorten_label

# Background, text, lines, and two series in blue and orange of Okabe and Ito's palette, which colour-blind people can
# tell apart; they differ in line style too.
BACKGROUND_COLOUR, INK, LINES, FIRST_COLOUR, SECOND_COLOUR = LIGHT = (
    "#ffffff", "#1f2328", "#d1d9e0", "#0072b2", "#d55e00"
)  # fmt: skip
DARK = ("#151b23", "#e6edf3", "#3d444d", "#56b4e9", "#e69f00")
_MAX_CLASSES_WITH_COUNTS = 40  # the cells of larger confusion matrices show no counts


@dataclass(frozen=True)
class Plot:
    """A plot: SVG for light and dark pages, and a description for those who cannot see it."""

    title: str
    alt: str
    light: bytes
    dark: bytes


def render_plot(title: str, alt: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> Plot:
    """Draw a figure of `size` inches in the light colours; the dark version is the same lines in other colours."""
    light = _render_svg(size, draw)
    dark = dict(zip(LIGHT, DARK, strict=True))
    recoloured = re.sub(r"((?:fill|stroke): )(#\w{6})", lambda match: match[1] + dark[match[2]], light)
    return Plot(title, alt, light.encode(), recoloured.encode())


def _render_svg(size: tuple[float, float], draw: Callable[[Figure], None]) -> str:
    """Without pyplot's global state, without a date and with fixed ids, so that equal figures are equal bytes."""
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


def matrix_plot(alt: str, counts: Ints, names: Sequence[str]) -> Plot:
    """Confusion matrix of the exported model: actual classes (rows) by predicted ones (columns).

    The colour is the share of the row.
    """
    classes = len(names)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with_counts = classes <= _MAX_CLASSES_WITH_COUNTS
    side = max(2.6, (0.27 if with_counts else 0.16) * classes)
    font_size = 10 if classes <= 8 else 8 if with_counts else 7
    short_names = [shorten_label(name) for name in names]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot(aspect="equal", xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5))
        axes.set(xlabel="predicted", ylabel="actual")
        axes.set_xticks(range(classes), short_names, rotation=0 if classes == 2 else 90, fontsize=font_size)
        axes.set_yticks(range(classes), short_names, fontsize=font_size)
        axes.grid(visible=False)
        for row, column in np.argwhere(counts):
            depth = 0.07 + 0.93 * share[row, column]  # one of a thousand is still visible
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=FIRST_COLOUR, alpha=depth, linewidth=0))
            if with_counts:
                colour = BACKGROUND_COLOUR if depth > 0.5 else INK
                count = str(counts[row, column])
                axes.text(column, row, count, ha="center", va="center", color=colour, fontsize=font_size)

    return render_plot("Confusion matrix of the exported model", alt, (side + 1.8, side + 1.2), draw)


def line_plot(
    title: str,
    series: Mapping[str, tuple[Floats, Floats]],
    x_label: str,
    y_label: str,
    *,
    diagonal: str = "",
    vertical: tuple[str, float] | None = None,
) -> Plot:
    """Two curves, both axes from 0 to 1.

    Args:
        title: of the plot.
        series: x and y by name.
        x_label: of the axis.
        y_label: of the axis.
        diagonal: name of the line x = y; empty: none.
        vertical: name and x of a vertical line.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if diagonal:
            axes.plot((0, 1), (0, 1), color=INK, linewidth=0.8, linestyle=":", label=diagonal)
        for (name, (x, y)), style, colour in zip(
            series.items(), ("-", "--"), (FIRST_COLOUR, SECOND_COLOUR), strict=True
        ):
            axes.plot(x, y, style, color=colour, label=name)
        if vertical:
            axes.axvline(vertical[1], color=INK, linewidth=0.8, linestyle=":", label=vertical[0])
        axes.set(xlabel=x_label, ylabel=y_label, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.legend(loc="best")

    alt = f"{title}: {x_label} (x axis) against {y_label} (y axis), for {' and '.join(series)}."
    return render_plot(title, alt, (4.4, 4.0), draw)


def training_curve_plots(histories: Mapping[str, History]) -> dict[str, Plot]:
    """A plot for each training stage, `curves-<stage>`, with losses on the same scale."""
    top = max((max(*h.train_loss, *h.val_loss) for h in histories.values()), default=1.0)
    return {f"curves-{stage}": _training_curve_plot(stage, history, top) for stage, history in histories.items()}


def _training_curve_plot(stage: str, history: History, top: float) -> Plot:
    """Loss (up to `top`), validation score and learning rate by epoch."""

    def add_curve(axes: Axes, values: Sequence[float], style: str, colour: str, label: str) -> None:
        axes.plot(history.epoch, values, style, color=colour, label=label, markersize=4)

    def draw(figure: Figure) -> None:
        loss, score, rate = figure.subplots(3, 1, height_ratios=[3, 3, 1.2], sharex=True)
        add_curve(loss, history.train_loss, "s--", SECOND_COLOUR, "training")
        add_curve(loss, history.val_loss, "o-", FIRST_COLOUR, "validation")
        loss.set(ylabel="loss", ylim=(0, top * 1.05))
        loss.legend(loc="best")
        add_curve(score, history.val_score, "o-", FIRST_COLOUR, "validation")
        score.set(ylabel=history.score, ylim=(-0.02, 1.02))
        add_curve(rate, history.lr, "-", INK, "learning rate")
        rate.set(ylabel="lr", xlabel="epoch", ylim=(0, None))
        rate.xaxis.get_major_locator().set_params(integer=True)
        if len(history.epoch) == 1:  # a single point has no scale of its own
            rate.set(xlim=(history.epoch[0] - 1, history.epoch[0] + 1))

    best = max(history.val_score)
    alt = (
        f"Training curves of {stage}, {len(history.epoch)} epochs: validation loss from {history.val_loss[0]:.3f} "
        f"to {history.val_loss[-1]:.3f}, best validation {history.score} {best:.3f}."
    )
    return render_plot(f"Stage {stage}", alt, (4.4, 5.4), draw)
