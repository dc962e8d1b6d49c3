"""A stage's results in stages/<stage>/ as metrics, params, artifact paths and hashes for experiment tracking.

Plain values: nothing here imports MLflow or writes a file.
"""

import csv
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from headstart.base.files import sha256_file
from headstart.params.root import Params

# The files that make a stage's results: its metrics and what downstream stages read.
RESULT_FILES = (
    "metrics.json",
    "annotations.json",
    "weights.json",
    "train.json",
    "val.json",
    "test.json",
    "model.safetensors",
    "model.onnx",
)
ARTIFACT_FILES = (  # the ONNX file is in the logged model
    "preview.jpg",
    "history.csv",
    "model.safetensors",
    "plots",
    "report.html",
    "answers.json",
    "parity.json",
    "model_card.md",
)
# Where and under which name something is recorded: no part of a variant, and may change while a run is resumed.
EXCLUDED_PARAMS: Any = {"tracking": True, "export": {"register_as", "champion_metric"}}
MAX_PARAM_LENGTH = 500  # MLflow 3 allows 6000 characters, older servers 500; params.yaml is an artifact anyway


class MetricPoint(NamedTuple):
    """One value of one metric; `time` is in milliseconds since 1970."""

    key: str
    value: float
    step: int
    time: int


def results_digest(folder: Path) -> str:
    """Hash of a stage's results, 16 hex digits; empty if there are none."""
    present = [folder / name for name in RESULT_FILES if (folder / name).is_file()]
    if not present:
        return ""
    lines = "\n".join(f"{path.name} {sha256_file(path)}" for path in present)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def metric_points(stage: str, folder: Path) -> list[MetricPoint]:
    """Metrics of a stage: history.csv with one step an epoch, metrics.json and speed.json at the last step.

    Keys begin with the stage's name (`train_head/val_loss`), except those of evaluate, which begin with the model
    (`test`, `head_only`). Times are the files' own, so that the same files always give the same points.

    Args:
        stage: its name, such as `train-head`.
        folder: its folder under stages/.
    """
    prefix = () if stage == "evaluate" else (stage.replace("-", "_"),)
    points = list(_history_points(folder / "history.csv", prefix))
    for path in (folder / name for name in ("metrics.json", "speed.json") if (folder / name).is_file()):
        # Same step, later time: MLflow's table shows the stage's summary (its best epoch).
        step = max((point.step for point in points), default=0)
        time = max([_modified_ms(path), *(point.time + 1 for point in points)])
        summary = json.loads(path.read_text(encoding="utf-8"))
        points += [MetricPoint(key, value, step, time) for key, value in _flatten_numbers(summary, prefix)]
    return points


def artifact_paths(folder: Path) -> list[Path]:
    """The files and folders to log as the run's artifacts."""
    return [folder / name for name in ARTIFACT_FILES if (folder / name).exists()]


def flat_params(params: Params) -> dict[str, str]:
    """params.yaml without `EXCLUDED_PARAMS` as `section.key`; lists as one line of JSON, long values truncated."""
    dump = params.model_dump(mode="json", exclude=EXCLUDED_PARAMS, exclude_none=True)
    return {key: _truncate(value) for key, value in _flatten_params(dump, "") if value}


def weights_params(folder: Path) -> dict[str, str]:
    """The texts in weights.json: name, source, sha256, licence."""
    path = folder / "weights.json"
    facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {f"weights.{key}": _truncate(value) for key, value in facts.items() if value and isinstance(value, str)}


def inputs_digest(params: Params, root: Path) -> str:
    """Hash of a variant, 16 hex digits: the values in params.yaml (not its comments) and the version of data/."""
    values = params.model_dump(mode="json", exclude=EXCLUDED_PARAMS)
    data = root / "data.dvc"
    data_version = data.read_bytes() if data.is_file() else b""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode() + data_version).hexdigest()[:16]


def dataset_name(params: Params) -> str:
    """The sources' names, such as `solar-cells+hike` for data/solar-cells.csv and data/hike."""
    names = []
    for source in params.fetch.sources:
        for kind in source.kinds():
            value = getattr(source, kind)
            names.append(Path(value).stem if isinstance(value, str) else kind)
    return "+".join(names)[:MAX_PARAM_LENGTH]


def _history_points(path: Path, prefix: tuple[str, ...]) -> Iterator[MetricPoint]:
    if not path.is_file():
        return
    time = _modified_ms(path)
    with path.open(encoding="utf-8", newline="") as file:
        for index, row in enumerate(csv.DictReader(file)):
            cells = {column: number for column, text in row.items() if (number := _parse_number(text)) is not None}
            step = int(cells.pop("epoch", index))
            yield from (MetricPoint(_metric_key(*prefix, column), value, step, time) for column, value in cells.items())


def _flatten_numbers(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    """The numbers in nested metrics. A null is an undefined metric (one class has no ROC AUC) and is left out."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flatten_numbers(inner, (*path, str(key)))
    elif isinstance(value, int | float):
        yield _metric_key(*path), float(value)


def _flatten_params(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flatten_params(inner, f"{key}.{name}" if key else name)
    else:
        yield key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _metric_key(*parts: str) -> str:
    """A metric's name; characters that MLflow rejects (labels may have some) become underscores."""
    return re.sub(r"[^\w\-. /]", "_", "/".join(parts))


def _parse_number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _truncate(text: str) -> str:
    return text if len(text) <= MAX_PARAM_LENGTH else text[: MAX_PARAM_LENGTH - 1] + "…"


def _modified_ms(path: Path) -> int:
    return path.stat().st_mtime_ns // 1_000_000
