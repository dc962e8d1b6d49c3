"""Two processes train as one does."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

import cases
import tiny

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
FINISHED = [case for case in cases.CASES if case != "stopped"]


@dataclass(frozen=True)
class Trained:
    """one/<case> and two/<case>: the same trainings by one process and by two, and what those two printed."""

    folder: Path
    said: str


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    base = tmp_path_factory.mktemp("ranks")
    before: dict[str, Path] = {}
    for task in ("classify", "detect"):
        root = before[task] = base / task
        if task == "classify":
            tiny.make_pictures(root)
            for number in range(5):  # labels of unequal number: their weights differ
                (root / f"data/blue/{number:02d}.png").unlink()
        else:
            tiny.make_boxes(root)
        params = cases.CASES["head" if task == "classify" else "fcos"][1]
        tiny.run(root, params, "fetch", "weights", "split", "augment")
        shutil.rmtree(root / ".cache", ignore_errors=True)
        shutil.copytree(root, base / f"{task}-start")
        tiny.run(root, params, "train-head")
    for case, (stage, params) in cases.CASES.items():
        start = before[params.task]
        if stage is cases.train_head:
            start = start.with_name(f"{start.name}-start")
        for which in ("one", "two"):
            shutil.copytree(start, base / which / case)
        cases.train(case, base / "one" / case)
    process = subprocess.Popen(
        [*TORCHRUN, sys.executable, cases.__file__, str(base / "two")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": str(torch.get_num_threads())},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while len(list((base / "two/stopped/.cache/checkpoints").rglob("*.pt"))) < 2 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate()
    return Trained(base, said)


@pytest.mark.parametrize("case", FINISHED)
def test_losses_and_models_are_those_of_one_process(trained: Trained, case: str) -> None:
    compare(trained, case)


def test_both_stop_at_one_step_and_one_goes_on(trained: Trained, capfd: pytest.CaptureFixture[str]) -> None:
    assert "fine-tune: stopped in epoch 2 after batch 1 of 3; `dvc repro` goes on" in trained.said
    assert not (trained.folder / "two/stopped/stages/fine-tune/model.safetensors").exists()
    cases.train("stopped", trained.folder / "two/stopped")
    assert "fine-tune: goes on in epoch 2, after batch 1 of 3" in capfd.readouterr().out
    compare(trained, "stopped")


def compare(trained: Trained, case: str) -> None:
    stage = "train-head" if cases.CASES[case][0] is cases.train_head else "fine-tune"
    one, two = (trained.folder / which / case / "stages" / stage for which in ("one", "two"))
    assert (two / "model.safetensors").exists(), trained.said
    rows, others = (read(folder / "history.csv") for folder in (one, two))
    assert len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        assert other == pytest.approx(row, rel=1e-5, abs=1e-5)
    # AdamW divides a gradient by its own size: where that is next to nothing, rounding decides. A step is 0.01.
    assert_close(load_file(two / "model.safetensors"), load_file(one / "model.safetensors"), atol=1e-4, rtol=0)


def read(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
