"""Figures that a stage has for each label: metrics where labels are few, one table where they are many."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

MANY_LABELS = 20  # with more of them MLflow's page would have hundreds of columns, and be slow
TABLE_ARTIFACT = "per_label.csv"

_FLAT = "label."  # fetch and split count pictures in keys such as `label.cat`
_NESTED = ("per_class", "labels", "sources")  # evaluate has a dictionary with an entry a label


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


def of_many_labels(figures: Iterable[Figure]) -> list[LabelFigure]:
    """All figures of single labels; none where the labels are at most MANY_LABELS."""
    found = [of_label for figure in figures if (of_label := find_label(figure))]
    return found if len({of_label.label for of_label in found}) > MANY_LABELS else []


def label_table(figures: Sequence[LabelFigure]) -> str:
    """CSV with a row a label and a column a figure, both in the order in which they first occur; absent ones are empty.

    Args:
        figures: of all stages.
    """
    columns = list(dict.fromkeys(figure.column for figure in figures))
    rows: dict[str, dict[tuple[str, ...], float]] = {}
    for figure in figures:
        rows.setdefault(figure.label, {})[figure.column] = figure.value
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["label", *("/".join(column) for column in columns)])
    for label, values in rows.items():
        table.writerow([label, *(f"{values[column]:.9g}" if column in values else "" for column in columns)])
    return text.getvalue().encode("utf-8", "backslashreplace").decode()
