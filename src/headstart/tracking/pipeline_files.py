"""What a run keeps of the repository's root: params.yaml, data.dvc, dvc.lock, and DVC's hash of the data."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml


def read_pipeline_files(root: Path, recorded: Collection[str]) -> dict[str, str]:
    """File name -> text, of those that exist.

    DVC writes a stage's entry in dvc.lock after the stage: entries of stages that are not `recorded` are of an earlier
    variant, and left out.

    Args:
        root: the repository root.
        recorded: the stages in the run, without the one that is still running.
    """
    found = {}
    for name in ("params.yaml", "data.dvc"):
        if (root / name).is_file():
            found[name] = (root / name).read_text(encoding="utf-8", errors="replace")
    lock = _read_yaml(root / "dvc.lock")
    if stages := {name: entry for name, entry in (lock.get("stages") or {}).items() if name in recorded}:
        found["dvc.lock"] = yaml.safe_dump(lock | {"stages": stages}, sort_keys=False, allow_unicode=True)
    return found


def data_md5(root: Path, recorded: Collection[str]) -> str:
    """DVC's md5 of data/: of the fetch that dvc.lock holds, else of data.dvc; empty where DVC has none.

    Args:
        root: the repository root.
        recorded: the stages in the run, without the one that is still running.
    """
    if "fetch" in recorded:
        fetch = (_read_yaml(root / "dvc.lock").get("stages") or {}).get("fetch") or {}
        for dep in fetch.get("deps") or ():
            if dep.get("path") == "data" and dep.get("md5"):
                return str(dep["md5"])
    outs = _read_yaml(root / "data.dvc").get("outs") or [{}]
    return str(outs[0].get("md5", ""))


def _read_yaml(path: Path) -> dict[str, Any]:
    """A file of DVC's; empty if it is missing or no YAML."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return loaded if isinstance(loaded, dict) else {}
