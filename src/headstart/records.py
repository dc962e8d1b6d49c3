"""What a stage left in stages/<stage>/, as the numbers, names and hashes that a tracker takes.

Plain values only: nothing here knows MLflow, and nothing here writes.
"""

import csv
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from headstart import files
from headstart.params import Params

# A stage's results: its metrics and what later stages read. Two executions with equal results are one record.
RESULTS = (
    "metrics.json",
    "annotations.json",
    "weights.json",
    "train.json",
    "val.json",
    "test.json",
    "model.safetensors",
    "model.onnx",
)
ARTIFACTS = (  # the ONNX file is in the logged model
    "preview.jpg",
    "history.csv",
    "model.safetensors",
    "plots",
    "report.html",
    "answers.json",
    "parity.json",
    "model_card.md",
)
# Where something is recorded and under which name does not make a variant, and may change while its run goes on.
OUTSIDE: Any = {"tracking": True, "export": {"register_as", "champion_metric"}}
LONGEST_PARAM = 500  # MLflow 3 takes 6000 characters, older servers 500, and params.yaml is an artifact anyway


class Point(NamedTuple):
    """One value of one metric; `time` is in milliseconds since 1970."""

    key: str
    value: float
    step: int
    time: int


def digest(folder: Path) -> str:
    """Hash of a stage's results; empty if it left none."""
    present = [folder / name for name in RESULTS if (folder / name).is_file()]
    if not present:
        return ""
    lines = "\n".join(f"{path.name} {files.sha256(path)}" for path in present)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def points(stage: str, folder: Path) -> list[Point]:
    """A stage's history.csv, one step an epoch, and its metrics.json and speed.json at the last step.

    evaluate names its models itself (`test`, `head_only`); every other stage's metrics begin with the stage's name.
    Times are the files' own, so that the same files give the same points whenever they are read.
    """
    prefix = () if stage == "evaluate" else (stage.replace("-", "_"),)
    found = list(_history(folder / "history.csv", prefix))
    for path in (folder / name for name in ("metrics.json", "speed.json") if (folder / name).is_file()):
        # Same step, later time: what the row shows is the stage's own summary (the epoch that it kept).
        step = max((point.step for point in found), default=0)
        time = max([_modified(path), *(point.time + 1 for point in found)])
        summary = json.loads(path.read_text(encoding="utf-8"))
        found += [Point(key, value, step, time) for key, value in _numbers(summary, prefix)]
    return found


def artifacts(folder: Path) -> list[Path]:
    """The files and folders worth keeping with the run."""
    return [folder / name for name in ARTIFACTS if (folder / name).exists()]


def flat_params(params: Params) -> dict[str, str]:
    """All of params.yaml but `OUTSIDE`, as `section.key`; lists in one line of JSON, long values shortened."""
    dump = params.model_dump(mode="json", exclude=OUTSIDE, exclude_none=True)
    return {key: _shortened(value) for key, value in _leaves(dump, "") if value}


def weights_params(folder: Path) -> dict[str, str]:
    """What weights.json says in words: name, source, sha256, licence."""
    path = folder / "weights.json"
    facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {f"weights.{key}": _shortened(value) for key, value in facts.items() if value and isinstance(value, str)}


def inputs_digest(params: Params, root: Path) -> str:
    """Hash of what makes a variant: the values in params.yaml (not its comments) and the state of data/."""
    values = params.model_dump(mode="json", exclude=OUTSIDE)
    data = root / "data.dvc"
    state = data.read_bytes() if data.is_file() else b""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode() + state).hexdigest()[:16]


def dataset_name(params: Params) -> str:
    """The sources' names, such as `solar-cells+hike` for data/solar-cells.csv and data/hike."""
    names = []
    for source in params.fetch.sources:
        for kind in source.kinds():
            value = getattr(source, kind)
            names.append(Path(value).stem if isinstance(value, str) else kind)
    return "+".join(names)[:LONGEST_PARAM]


def _history(path: Path, prefix: tuple[str, ...]) -> Iterator[Point]:
    if not path.is_file():
        return
    time = _modified(path)
    with path.open(encoding="utf-8", newline="") as file:
        for index, row in enumerate(csv.DictReader(file)):
            cells = {column: number for column, text in row.items() if (number := _number(text)) is not None}
            step = int(cells.pop("epoch", index))
            yield from (Point(_key(*prefix, column), value, step, time) for column, value in cells.items())


def _numbers(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    """The numbers in nested metrics. A null is a metric that does not exist here (one class has no ROC AUC)."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, (*path, str(key)))
    elif isinstance(value, int | float):
        yield _key(*path), float(value)


def _leaves(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else name)
    else:
        yield key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _key(*parts: str) -> str:
    """A metric's name; a label in it may hold characters that MLflow refuses."""
    return re.sub(r"[^\w\-. /]", "_", "/".join(parts))


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_PARAM else text[: LONGEST_PARAM - 1] + "…"


def _modified(path: Path) -> int:
    return path.stat().st_mtime_ns // 1_000_000
