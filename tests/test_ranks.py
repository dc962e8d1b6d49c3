"""Two processes train as one does."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

import cases
import tiny

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """one/<case> and two/<case>: the same trainings by one process and by two."""
    base = tmp_path_factory.mktemp("ranks")
    for case, params in cases.CASES.items():
        root = base / "two" / case
        if params.task == "classify":
            tiny.make_pictures(root)
            for number in range(5):  # labels of unequal number: their weights differ
                (root / f"data/blue/{number:02d}.png").unlink()
        else:
            tiny.make_boxes(root)
        tiny.run(root, params, "fetch", "weights", "split", "augment")
        shutil.copytree(root, base / "one" / case)
        cases.train(case, base / "one" / case)
    done = subprocess.run(
        [*TORCHRUN, sys.executable, cases.__file__, str(base / "two")],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return base


@pytest.mark.parametrize("stage", ["train-head", "fine-tune"])
@pytest.mark.parametrize("case", cases.CASES)
def test_losses_and_models_are_those_of_one_process(trained: Path, case: str, stage: str) -> None:
    one, two = (trained / which / case / "stages" / stage for which in ("one", "two"))
    rows, others = (read(folder / "history.csv") for folder in (one, two))
    print(
        max(abs(float(a[k]) - float(b[k])) for a, b in zip(rows, others, strict=True) for k in a), rows[-1], others[-1]
    )
    for row, other in zip(rows, others, strict=True):
        assert {key: float(value) for key, value in row.items()} == pytest.approx(
            {key: float(value) for key, value in other.items()}, abs=1e-5
        )
    assert_close(load_file(two / "model.safetensors"), load_file(one / "model.safetensors"), atol=1e-5, rtol=0)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
