"""A stage's results in stages/<stage>/ as params, artifact paths and hashes for experiment tracking.

Plain values: nothing here imports MLflow or writes a file.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headstart.base.files import sha256_file
from headstart.params.root import Params
from headstart.tracking.masking import mask_addresses

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
# The weights lie in a run once, as the ONNX file of its logged model. The stages' model.safetensors are in DVC's cache,
# and the run has their hashes in dvc.lock.
ARTIFACT_FILES = (
    "preview.jpg",
    "history.csv",
    "plots",
    "report.html",
    "answers.json",
    "parity.json",
    "model_card.md",
)
# Where and under which name something is recorded: no part of a variant, and may change while a run is resumed.
EXCLUDED_PARAMS: Any = {"tracking": True, "export": {"register_as", "champion_metric", "champion_rule"}}
MAX_PARAM_LENGTH = 500  # MLflow 3 allows 6000 characters, older servers 500; params.yaml is an artifact anyway


def results_digest(folder: Path) -> str:
    """Hash of a stage's results, 16 hex digits; empty if there are none."""
    present = [folder / name for name in RESULT_FILES if (folder / name).is_file()]
    if not present:
        return ""
    lines = "\n".join(f"{path.name} {sha256_file(path)}" for path in present)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def artifacts_digest(folder: Path) -> str:
    """Hash of the files in `artifact_paths`, 16 hex digits; empty if there are none."""
    found = artifact_paths(folder)
    files = [file for path in found for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    lines = "\n".join(f"{file.relative_to(folder)} {sha256_file(file)}" for file in files if file.is_file())
    return hashlib.sha256(lines.encode()).hexdigest()[:16] if lines else ""


def artifact_paths(folder: Path) -> list[Path]:
    """The files and folders to log as the run's artifacts."""
    return [folder / name for name in ARTIFACT_FILES if (folder / name).exists()]


def flat_params(params: Params) -> dict[str, str]:
    """params.yaml without `EXCLUDED_PARAMS` as `section.key`; lists as one line of JSON, long values truncated.

    Passwords in addresses are masked.
    """
    dump = params.model_dump(mode="json", exclude=EXCLUDED_PARAMS, exclude_none=True)
    return {key: _storable(value) for key, value in _flatten_params(dump, "") if value}


def weights_params(folder: Path) -> dict[str, str]:
    """The texts in weights.json: name, source, sha256, licence."""
    path = folder / "weights.json"
    facts = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {f"weights.{key}": _storable(value) for key, value in facts.items() if value and isinstance(value, str)}


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


def _flatten_params(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flatten_params(inner, f"{key}.{name}" if key else name)
    else:
        yield key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _storable(text: str) -> str:
    """Without passwords, at most MAX_PARAM_LENGTH letters, all of them with a form in UTF-8."""
    text = mask_addresses(text).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_PARAM_LENGTH else text[: MAX_PARAM_LENGTH - 1] + "…"
