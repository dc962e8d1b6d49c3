"""The real pipeline through `dvc repro`, on a dozen generated pictures with an untrained tiny backbone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from mlflow.tracking import MlflowClient
from PIL import Image

from clone import ALL, TINY, Project


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
    assert metrics["head_only"]["pictures"] == metrics["test"]["pictures"] == 3
    assert project.json("stages/export/parity.json")["same_label"] == 3
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


def test_what_python_and_editors_leave_beside_the_code_makes_no_stage_stale(project: Project) -> None:
    code = project.folder / "src/headstart"
    project.run("headstart", "split")
    for folder in code.rglob("__pycache__"):
        shutil.rmtree(folder)
    assert "up to date" in project.run("dvc", "status")
    project.run("python", "-m", "compileall", "-q", "src")
    assert list(code.rglob("__pycache__/*.pyc"))
    for name in (".DS_Store", "fetch/.stage.py.swp", "models/.ipynb_checkpoints/file.py"):
        (code / name).parent.mkdir(exist_ok=True)
        (code / name).write_bytes(b"left behind")
    assert "up to date" in project.run("dvc", "status")


def test_an_edit_runs_what_it_touches_and_its_run_is_complete(project: Project) -> None:
    project.change(train_head={"weight_decay": 0.02})
    try:
        assert project.repro() == ALL[4:]
        assert len(project.runs()) == 2
        assert all("fetch/pictures" in run and "test/accuracy" in run for run in project.runs())
    finally:
        project.change(train_head={"weight_decay": "auto"})
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
    project.run("dvc", "exp", "run", "-q", "-n", "slower", "-S", "fine_tune.lr=1e-4")
    client = MlflowClient(f"sqlite:///{project.folder}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'solar-cells'")
    newest = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])[0]
    assert newest.info.run_name == "slower"
    assert newest.data.params["fine_tune.lr"] == "0.0001"
    assert "fetch/pictures" in newest.data.metrics
    assert "test/accuracy" in newest.data.metrics
    assert "slower" in project.run("dvc", "exp", "show", "--csv")
    assert "test.accuracy" in project.run("dvc", "metrics", "show")
