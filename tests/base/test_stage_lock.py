"""Two executions of one stage in one folder exclude each other, and a killed one leaves no lock behind."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headstart.base.errors import UserError
from headstart.base.stage_lock import stage_lock

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MLFLOW_TRACKING_URI": ""}
# The split stage, which says that it runs and then waits for its input to end.
WAITING = """
import sys
from headstart import cli, tasks
from headstart.tracking import recorder
recorder._start_process = lambda: None
def stage(*_):
    print("runs", flush=True)
    sys.stdin.read()
tasks.load = lambda name, params: stage
sys.argv = ["headstart", "split"]
cli.main()
"""


def start(folder: Path, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", WAITING],
        cwd=folder,
        env=ENVIRONMENT | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def test_the_second_execution_is_one_line_and_a_kill_frees_the_stage(folder: Path) -> None:
    first = start(folder)
    assert first.stdout
    assert first.stdout.readline() == "runs\n"
    before = sorted(folder.rglob("*"))
    second = start(folder)
    out, err = second.communicate("")
    assert second.returncode == 2
    assert out == ""
    assert err.startswith(f"error: .cache/locks/split.lock: process {first.pid} on ")
    assert err.endswith(
        f"runs split in this folder; wait until it ends, or stop it (kill {first.pid}), and the same command goes on\n"
    )
    assert err.count("\n") == 1
    assert sorted(folder.rglob("*")) == before, "nothing was written"
    first.send_signal(signal.SIGKILL)
    first.communicate()
    third = start(folder)
    assert third.communicate("")[0] == "runs\n"
    assert third.returncode == 0


def test_other_ranks_of_a_launcher_take_no_lock(folder: Path) -> None:
    first = start(folder)
    assert first.stdout
    assert first.stdout.readline() == "runs\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        patch.setenv("RANK", "1")
        with stage_lock(folder, "split"):
            pass
        patch.setenv("RANK", "0")
        with pytest.raises(UserError, match=f"process {first.pid} on"), stage_lock(folder, "split"):
            pass
    first.communicate("")


def test_stages_and_folders_have_locks_of_their_own(tmp_path: Path) -> None:
    with stage_lock(tmp_path, "split"), stage_lock(tmp_path, "augment"), stage_lock(tmp_path / "other", "split"):
        pass
    with stage_lock(tmp_path, "split"):
        pass


def test_a_file_system_without_locks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("headstart.base.stage_lock._lock", none)
    with stage_lock(tmp_path, "split"):
        assert "no lock ([Errno 37] No locks available): run split once at a time" in capsys.readouterr().err
