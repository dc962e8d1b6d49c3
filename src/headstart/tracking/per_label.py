"""Figures that a stage has for each label or slice: metrics where labels are few, else tables."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

MANY_LABELS = 20  # with more of them MLflow's page would have hundreds of columns, and be slow
TABLE_ARTIFACT = "per_label.csv"
SLICES_ARTIFACT = "per_slice.csv"

_FLAT = "label."  # fetch and split count pictures in keys such as `label.cat`
_NESTED = ("per_class", "labels", "sources")  # evaluate has a dictionary with an entry a label
_SLICES = "slices"  # and one with an entry a property, which has one a slice
_INTERVAL = ("_low", "_high")


class Figure(NamedTuple):
    """A number in a stage's metrics.json, and the keys that lead to it."""

    path: tuple[str, ...]
    value: float


class LabelFigure(NamedTuple):
    """A label's figure: `column` is what the number is, without the label."""

    label: str
    column: tuple[str, ...]
    value: float


def find_label(figure: Figure) -> LabelFigure | None:
    """The label that a figure is of, and which one it is; None: it is of no single label."""
    for index, key in enumerate(figure.path):
        before, after = figure.path[:index], figure.path[index + 1 :]
        if key.startswith(_FLAT):
            return LabelFigure(key.removeprefix(_FLAT), (*before, "count", *after), figure.value)
        if before and before[-1] in _NESTED:
            kept = before[:-1] if before[-1] == "per_class" else before
            return LabelFigure(key, (*kept, *after), figure.value)
    return None


def find_slice(figure: Figure) -> LabelFigure | None:
    """The slice that a figure is of, as `source: phone`, and which one it is; None: it is of no slice."""
    if figure.path[0] != _SLICES or len(figure.path) < 4:
        return None
    _, key, name, *column = figure.path
    return LabelFigure(f"{key}: {name}", tuple(column), figure.value)


def is_metric(figure: Figure, *, many_labels: bool) -> bool:
    """Whether a figure is a metric of MLflow's: not one of many labels, no end of a label's interval, and of no slice.

    These would be hundreds of columns; they are in tables.
    """
    if find_label(figure):
        return not (many_labels or figure.path[-1].endswith(_INTERVAL))
    return not find_slice(figure)


def of_labels_in_table(figures: Iterable[Figure]) -> list[LabelFigure]:
    """All figures of single labels where these are many or have intervals; else none: they are metrics then."""
    figures = list(figures)
    found = [of_label for figure in figures if (of_label := find_label(figure))]
    has_intervals = any(of_label.column[-1].endswith(_INTERVAL) for of_label in found)
    return found if has_intervals else of_many_labels(figures)


def of_many_labels(figures: Iterable[Figure]) -> list[LabelFigure]:
    """All figures of single labels; none where the labels are at most MANY_LABELS."""
    found = [of_label for figure in figures if (of_label := find_label(figure))]
    return found if len({of_label.label for of_label in found}) > MANY_LABELS else []


def label_table(figures: Sequence[LabelFigure], first: str = "label") -> str:
    """CSV with a row a label and a column a figure, both in the order in which they first occur; absent ones are empty.

    Args:
        figures: of all stages.
        first: the header of the first column.
    """
    columns = list(dict.fromkeys(figure.column for figure in figures))
    rows: dict[str, dict[tuple[str, ...], float]] = {}
    for figure in figures:
        rows.setdefault(figure.label, {})[figure.column] = figure.value
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([first, *("/".join(column) for column in columns)])
    for label, values in rows.items():
        table.writerow([label, *(f"{values[column]:.9g}" if column in values else "" for column in columns)])
    return text.getvalue().encode("utf-8", "backslashreplace").decode()
