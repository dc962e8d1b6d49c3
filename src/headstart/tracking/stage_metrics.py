"""The figures of a stage, in stages/<stage>/, as metrics for MLflow.

Plain values: nothing here imports MLflow or writes a file.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from headstart.tracking.metric_keys import path_keys
from headstart.tracking.per_label import (
    Figure,
    LabelFigure,
    find_slice,
    is_metric,
    of_labels_in_table,
    of_many_labels,
)

PARITY = "parity.json"
SUMMARY_FILES = ("metrics.json", "speed.json", PARITY)
# Figures that no training changes: key in metrics.json or speed.json -> name as a param.
CONSTANTS = {
    ("fine-tune", "frozen_parameters"): "network.frozen_parameters",
    ("fine-tune", "trained_parameters"): "network.trained_parameters",
    ("export", "threads"): "speed.threads",
}


class MetricPoint(NamedTuple):
    """One value of one metric; `time` is in milliseconds since 1970."""

    key: str
    value: float
    step: int
    time: int


def metric_points(stage: str, folder: Path) -> list[MetricPoint]:
    """Metrics of a stage: history.csv with one step an epoch, metrics.json and others at the last step.

    Keys begin with the stage's name (`train_head/val_loss`), except those of evaluate, which begin with the model
    (`test`, `head_only`). Times are the files' own, so that the same files always give the same points. Without
    CONSTANTS, and without the figures that tables have (`label_figures`, `slice_figures`).

    Args:
        stage: its name, such as `train-head`.
        folder: its folder under stages/.
    """
    history = list(_history_points(folder / "history.csv", _prefix(stage)))
    return history + summary_points(stage, folder, history)


def summary_points(stage: str, folder: Path, history: Iterable[MetricPoint] = ()) -> list[MetricPoint]:
    """The part of `metric_points` that is of SUMMARY_FILES.

    Args:
        stage: its name.
        folder: its folder under stages/.
        history: the part of history.csv. These come after it, at its last step, so that MLflow's table shows them (the
            stage's best epoch).
    """
    points = list(history)
    summary: list[MetricPoint] = []
    for path in _summary_files(folder):
        step = max((point.step for point in points), default=0)
        time = max([_modified_ms(path), *(point.time + 1 for point in points)])
        figures = _read_figures(path)
        many = bool(of_many_labels(figures))
        keys = path_keys((*_prefix(stage), *figure.path) for figure in figures)
        summary += [
            MetricPoint(keys[*_prefix(stage), *figure.path], figure.value, step, time)
            for figure in figures
            if is_metric(figure, many_labels=many) and (stage, figure.path[-1]) not in CONSTANTS
        ]
        points = [*history, *summary]
    return summary


def label_figures(stage: str, folder: Path) -> list[LabelFigure]:
    """A stage's figures of single labels where they are many or have intervals; a column begins as a metric's key."""
    figures = [figure for path in _summary_files(folder) for figure in _read_figures(path)]
    return [of_label._replace(column=(*_prefix(stage), *of_label.column)) for of_label in of_labels_in_table(figures)]


def slice_figures(stage: str, folder: Path) -> list[LabelFigure]:
    """A stage's figures of slices, for a table."""
    figures = [figure for path in _summary_files(folder) for figure in _read_figures(path)]
    return [of_slice for figure in figures if (of_slice := find_slice(figure))]


def constant_params(stage: str, folder: Path) -> dict[str, str]:
    """A stage's CONSTANTS, as params."""
    figures = [figure for path in _summary_files(folder) for figure in _read_figures(path)]
    return {CONSTANTS[key]: f"{f.value:.15g}" for f in figures if (key := (stage, f.path[-1])) in CONSTANTS}


def kept_model(folder: Path) -> str:
    """Which model fine-tuning kept: `head-only` where no epoch was better, else `fine-tuned`; empty: not known.

    Args:
        folder: stages/fine-tune.
    """
    path = folder / "metrics.json"
    best = json.loads(path.read_text(encoding="utf-8")).get("best_epoch") if path.is_file() else None
    return "" if best is None else "head-only" if best == 0 else "fine-tuned"


def _history_points(path: Path, prefix: tuple[str, ...]) -> Iterator[MetricPoint]:
    if not path.is_file():
        return
    time = _modified_ms(path)
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        keys = path_keys((*prefix, column) for column in reader.fieldnames or ())
        for index, row in enumerate(reader):
            cells = {column: number for column, text in row.items() if (number := _parse_number(text)) is not None}
            step = int(cells.pop("epoch", index))
            yield from (MetricPoint(keys[*prefix, column], value, step, time) for column, value in cells.items())


def _prefix(stage: str) -> tuple[str, ...]:
    return () if stage == "evaluate" else (stage.replace("-", "_"),)


def _summary_files(folder: Path) -> list[Path]:
    return [folder / name for name in SUMMARY_FILES if (folder / name).is_file()]


def _read_figures(path: Path) -> list[Figure]:
    """The numbers in nested metrics. A null is an undefined metric (one class has no ROC AUC) and is left out.

    Of parity.json only what int8 costs: the rest is of the proof, not of the model.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if path.name == PARITY:
        content = {"int8": content["int8"] | _answers_changed(content)} if "int8" in content else {}
    return list(_flatten_numbers(content, ()))


def _answers_changed(parity: dict[str, Any]) -> dict[str, Any]:
    """How far the 8-bit file's answers are from the fp32 model's."""
    return {
        key: parity[key]
        for key in ("same_label", "same_box", "largest_probability_difference", "largest_score_difference")
        if key in parity
    }


def _flatten_numbers(value: Any, path: tuple[str, ...]) -> Iterator[Figure]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten_numbers(inner, (*path, str(key)))
    elif isinstance(value, int | float):
        yield Figure(path, float(value))


def _parse_number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _modified_ms(path: Path) -> int:
    return path.stat().st_mtime_ns // 1_000_000
