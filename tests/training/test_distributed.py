"""Two processes train as one does."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.testing import assert_close

import cases
import tiny
from headstart import cli, tasks
from headstart.base import distributed
from headstart.base.errors import UserError
from headstart.models import detector
from headstart.models.heads import fasterrcnn
from headstart.models.heads.ssd import SsdDetectionHead
from tiny import train_head
from training.toy import make_network, make_params, train

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
FINISHED = [case for case in cases.CASES if case != "stopped"]


@dataclass(frozen=True)
class Trained:
    """one/<case> and two/<case>: the same trainings by one process and by two, and the output of those two."""

    folder: Path
    output: str


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
        if stage is train_head:
            start = start.with_name(f"{start.name}-start")
        for which in ("one", "two"):
            shutil.copytree(start, base / which / case)
        cases.train(case, base / "one" / case)
    process = subprocess.Popen(
        [*TORCHRUN, sys.executable, cases.__file__, str(base / "two")],
        env=ENVIRONMENT | {"OMP_NUM_THREADS": str(torch.get_num_threads())},  # part of a checkpoint's key
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while len(list((base / "two/stopped/.cache/checkpoints").rglob("*.pt"))) < 2 and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    return Trained(base, output)


@pytest.mark.parametrize("case", FINISHED)
def test_losses_and_models_are_those_of_one_process(trained: Trained, case: str) -> None:
    compare(trained, case)


def test_both_stop_at_one_step_and_one_process_resumes(trained: Trained, capfd: pytest.CaptureFixture[str]) -> None:
    root = trained.folder / "one/stopped"
    steps = -(-len(tiny.manifest(root, "split", "train").images) // cases.CASES["stopped"][1].fine_tune.batch_size)
    stopped = re.findall(
        rf"fine-tune: stopped in (epoch \d) (after batch \d of {steps}); `dvc repro` resumes\n", trained.output
    )
    assert len(stopped) == 1, trained.output
    assert not (trained.folder / "two/stopped/stages/fine-tune/model.safetensors").exists()
    cases.train("stopped", trained.folder / "two/stopped")
    assert f"fine-tune: resumes in {', '.join(stopped[0])}\n" in capfd.readouterr().out
    compare(trained, "stopped")


def compare(trained: Trained, case: str) -> None:
    stage = "train-head" if cases.CASES[case][0] is train_head else "fine-tune"
    one, two = (trained.folder / which / case / "stages" / stage for which in ("one", "two"))
    assert (two / "model.safetensors").exists(), trained.output
    rows, others = (read(folder / "history.csv") for folder in (one, two))
    assert len(rows) == len(others)
    for row, other in zip(rows, others, strict=True):
        assert other == pytest.approx(row, rel=1e-5, abs=1e-5)
    # AdamW divides a gradient by its own size: where that is next to nothing, rounding decides. A step is 0.01.
    assert_close(load_file(two / "model.safetensors"), load_file(one / "model.safetensors"), atol=1e-3, rtol=0)


def read(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", ["fcos", "retinanet", "ssd", "fasterrcnn"])
def test_a_detectors_loss_is_the_sum_of_its_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    feature_maps = [torch.randn(3, 32, side, side) for side in (12, 6, 3, 2, 1)]
    targets = torch.tensor([[[0, 10, 10, 50, 40]], [[1, 30, 20, 90, 90]], [[-1, 0, 0, 0, 0]]], dtype=torch.float32)
    targets = torch.cat([targets, torch.tensor([[[1, 5, 50, 30, 90]], *[[[-1, 0, 0, 0, 0]]] * 2])], 1)
    head = detector.HEADS["retinanet" if name == "ssd" else name](32, 2, feature_maps, (96, 96))
    outputs = head(feature_maps, targets).detach()
    if name == "ssd":
        head, outputs = SsdDetectionHead(nn.Identity(), head.anchors, 0.5), torch.randn(*outputs.shape[:2], 2 + 5)
    monkeypatch.setattr(fasterrcnn, "sample_balanced", lambda positive, negative, *_: positive | negative)
    head.eval()
    expected = head.loss(outputs, targets)
    head.train()
    summed: list[list[Any]] = []  # the numbers that each rank sums over all ranks, in order

    def part_of_loss(rows: slice, total: Callable[[int, Any], Any]) -> torch.Tensor:
        summed.append([])

        def all_reduce_sum(number: Any, *, shared: bool) -> Any:
            assert shared
            summed[-1].append(number)
            return total(len(summed[-1]) - 1, number)

        monkeypatch.setattr(distributed, "all_reduce_sum", all_reduce_sum)
        return head.loss(outputs[rows], targets[rows])

    for rows in (slice(1), slice(1, 3)):
        part_of_loss(rows, lambda _, number: number)
    parts = [
        part_of_loss(rows, lambda index, _: summed[0][index] + summed[1][index]) for rows in (slice(1), slice(1, 3))
    ]
    torch.testing.assert_close(parts[0] + parts[1], expected)


def test_without_a_launcher_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys\nfrom headstart.base import distributed as d\nd.init_distributed()\n"
        "assert d.all_gather_numbers(3.5) == [(3.5,)] and d.broadcast_object('x') == 'x'\n"
        "assert d.all_gather_tensors([1]) == [1] and d.all_reduce_sum(4) == 4\n"
        "assert list(range(9))[d.rank_slice(9)] == list(range(9))\n"
        "d.wait_for_all()\nd.shutdown_distributed()\nprint('torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], env=ENVIRONMENT, text=True) == "False\n"
    monkeypatch.setenv("SLURM_NTASKS", "8")  # sbatch without srun
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert distributed.launched_world_size() == 1


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_row_is_one_ranks(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_process_group", distributed._ProcessGroup(count))
    for rows in (0, 1, 6, 7, 50):
        slices = []
        for rank in range(count):
            monkeypatch.setenv("RANK", str(rank))
            slices.append(range(rows)[distributed.rank_slice(rows)])
        assert [row for part in slices for row in part] == list(range(rows))
        assert max(map(len, slices)) - min(map(len, slices)) <= 1


def test_a_batch_with_fewer_pictures_than_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_process_group", distributed._ProcessGroup(4))
    with pytest.raises(UserError, match=r"params.yaml: fine_tune.batch_size: a batch has 3 pictures, and 4 processes"):
        distributed.rank_rows(torch.arange(3), "fine-tune")


def test_a_batch_norm_that_trains_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_process_group", distributed._ProcessGroup(2))
    monkeypatch.setattr(distributed, "broadcast_object", lambda value: value)
    with pytest.raises(UserError, match=r"train-head trains a batch norm, and 2 processes cannot share"):
        train(tmp_path, make_params(), make_network())


SLURM = {"SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "9", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "123"}


@pytest.mark.parametrize(
    ("nodes", "first"), [("gpu[003-004,9]", "gpu003"), ("a1,b2", "a1"), ("n-7", "n-7"), ("x[5,7-9]", "x5")]
)
def test_sruns_processes_meet_on_the_first_node(nodes: str, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (SLURM | {"SLURM_STEP_NODELIST": nodes}).items():
        monkeypatch.setenv(name, value)
    assert (distributed.get_rank(), distributed.launched_world_size()) == (9, 16)
    assert (distributed._local_gpu(4), distributed._local_gpu(1)) == (1, 0)
    distributed._set_master_address()
    assert os.environ["MASTER_ADDR"] == first
    assert 20000 <= int(os.environ["MASTER_PORT"]) < 40000


def test_a_missing_variable_or_gpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "here"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with pytest.raises(UserError, match=r"params.yaml: launcher: 4 processes are started, and MASTER_PORT is not set"):
        distributed._set_master_address()
    with pytest.raises(UserError, match="process 2 of this machine has no GPU of its own, for there are 1"):
        distributed._local_gpu(1)


def test_stages_without_training_run_in_the_main_process_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # without params.yaml: whoever looks for it fails
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    for stage in tasks.STAGES:
        if stage not in cli.DISTRIBUTED_STAGES:
            cli.run_stage(stage)
    with pytest.raises(UserError):
        cli.run_stage("train-head")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError):
        cli.run_stage("split")


def test_a_users_mistake_ends_all_processes_and_is_printed_once(tmp_path: Path) -> None:
    command = [*TORCHRUN, sys.executable, "-c", "from headstart.cli import main; main()", "train-head"]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert lines == ["error: params.yaml: no such file; copy one: cp recipes/solar-cells.yaml params.yaml"], (
        "by the main process alone"
    )
    assert "headstart/" not in done.stderr, "no traceback of ours"
