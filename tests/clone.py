"""A clone of this repository for a test: its own data/ and params.yaml, run by DVC as a user runs it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from mlflow.tracking import MlflowClient

ROOT = Path(__file__).parents[1]
TINY = {
    "model": {"backbone": "test_efficientnet", "weights": "none", "image_size": 32},
    "augment": {"copies": 1},
    "train_head": {"epochs": 2},
    "fine_tune": {"epochs": 1, "freeze_depth": 3},
    "evaluate": {"bootstrap": 100},
}


def merged(base: dict[str, object], changes: dict[str, object]) -> dict[str, object]:
    out = dict(base)
    for key, value in changes.items():
        here = out.get(key)
        out[key] = merged(here, value) if isinstance(here, dict) and isinstance(value, dict) else value
    return out


class Project:
    """A clone of this repository's working tree, with its own data/ and params.yaml, and no remote."""

    def __init__(self, folder: Path, changes: dict[str, object]) -> None:
        self.folder = folder
        names = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True).split(
            "\n"
        )
        for name in filter(None, names):
            if name.startswith(("src/", "recipes/", ".dvc/", "outside/")) or name in (
                "dvc.yaml",
                ".gitignore",
                ".dvcignore",
            ):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        self.edit(merged(yaml.safe_load((ROOT / "recipes/solar-cells.yaml").read_text()), changes))
        self.run("git", "init", "-q")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", "start")

    def edit(self, params: dict[str, object]) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    def change(self, **sections: dict[str, object]) -> None:
        self.edit(merged(yaml.safe_load((self.folder / "params.yaml").read_text()), dict(sections)))

    def run(self, *command: str, code: int = 0) -> str:
        where = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": "src"}
        quiet = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DVC_"))}
        done = subprocess.run(
            command, cwd=self.folder, env=quiet | where, text=True, capture_output=True, timeout=280, check=False
        )
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def repro(self) -> list[str]:
        """Run the pipeline; the stages that DVC executed."""
        said = self.run("dvc", "repro")
        return [line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")]

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def runs(self) -> list[dict[str, float]]:
        client = MlflowClient(f"sqlite:///{self.folder}/mlflow.db")
        found = client.search_experiments(filter_string="name = 'solar-cells'")
        return [run.data.metrics for run in client.search_runs([found[0].experiment_id])]


ALL = ["fetch", "weights", "split", "augment", "train-head", "fine-tune", "evaluate", "export"]
