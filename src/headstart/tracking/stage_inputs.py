"""What a stage's results follow from, as a hash: the params and code that dvc.yaml lists, and the results it reads."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from headstart.params.root import Params
from headstart.tracking.stage_graph import STAGE_DEPENDENCIES

_NO_CODE = {"__pycache__", ".ipynb_checkpoints"}  # as .dvcignore


def stage_inputs(name: str, params: Params, root: Path, digests: Mapping[str, str]) -> str:
    """Hash of all that a stage depends on, 16 hex digits; equal hashes mean that DVC would not run it again.

    Args:
        name: the stage.
        params: of this execution.
        root: the repository root, with dvc.yaml.
        digests: stage -> hash of its results, of those that the stage reads.

    Returns:
        the hash; empty where there is no dvc.yaml, or one of the results is missing.
    """
    if not (root / "dvc.yaml").is_file():
        return ""
    stage = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"][name]
    dump = params.model_dump(mode="json", by_alias=True)
    # Where something is recorded changes no result.
    values = {key: _look_up(dump, key) for key in stage["params"] if key.split(".")[0] != "tracking"}
    parts = [json.dumps([params.launcher, values], sort_keys=True)]
    for dep in stage["deps"]:
        owner = dep.removeprefix("stages/").partition("/")[0]
        if dep.startswith("stages/") and owner in STAGE_DEPENDENCIES:
            if owner not in digests:
                return ""
            parts.append(digests[owner])
        elif dep == "data":
            parts.append(_hash_file(root / "data.dvc"))
        else:
            parts.append(_hash_files(root / dep))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _look_up(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _hash_files(path: Path) -> str:
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    code = [file for file in files if file.is_file() and not _NO_CODE & set(file.parts) and file.name[0] != "."]
    lines = "\n".join(f"{file.relative_to(path.parent).as_posix()} {_hash_file(file)}" for file in code)
    return hashlib.sha256(lines.encode()).hexdigest()


def _hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
