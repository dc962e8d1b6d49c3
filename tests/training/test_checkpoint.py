"""Training that was stopped resumes, and ends in the same bits as training that was not."""

import itertools
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

import tiny
from conftest import Project
from headstart.base.errors import UserError
from headstart.base.files import crc32_file
from headstart.params.root import Params
from headstart.training import checkpoint, loop_state, schedule
from headstart.training.checkpoint import Checkpoints
from headstart.training.loop_state import BestEpoch, ValMetrics
from headstart.training.optimizer import AdamW
from training.toy import STEPS, equal, make_network, make_params, read_history, train


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step."""
    monkeypatch.setattr(checkpoint, "SAVE_INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "MAX_WRITE_SHARE", math.inf)


class DiedError(Exception):
    """Stands for a kill within one process."""


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("ema", [0, 0.9])
@pytest.mark.parametrize("patience", [0, 2])
@pytest.mark.parametrize("more", [{}, {"accumulate": 2, "clip_norm": 0.3}])
def test_stopped_after_any_step_it_ends_in_the_same_bits(
    tmp_path: Path, ema: float, patience: int, more: dict[str, float]
) -> None:
    """Dropout, batch norm, moments, moving average, best epoch and history: all of it is restored."""
    params = make_params(ema=ema, weight_decay=0.1, warmup_epochs=1, patience=patience, **more)
    whole = make_network()
    expected = train(tmp_path / "whole", params, whole)
    steps = STEPS * params.max_epochs()
    for death in range(1, steps + 1):
        folder, seen = tmp_path / str(death), 0

        def spoil(epoch: int, step: int, death: int = death) -> float:
            if (epoch - 1) * STEPS + step == death:
                raise DiedError
            return 1.0

        try:
            train(folder, params, make_network(), spoil=spoil)
        except DiedError:
            seen = 1
        model = make_network()
        assert train(folder, params, model) == expected
        assert equal(model.state_dict(), whole.state_dict()), death
        assert (folder / "history.csv").read_bytes() == (tmp_path / "whole/history.csv").read_bytes()
        assert seen or death == steps or patience


@pytest.mark.usefixtures("always")
def test_the_last_two_stay_and_a_broken_one_is_skipped(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    params, whole = make_params(), make_network()
    expected = train(tmp_path, params, whole)
    files = sorted((tmp_path / "checkpoints").iterdir())
    assert [file.name for file in files] == [
        f"{number:012d}-{crc32_file(file):08x}.pt" for number, file in zip((11, 12), files, strict=True)
    ]
    whole_file = files[1].read_bytes()
    flipped = whole_file[:3000] + bytes([whole_file[3000] ^ 1]) + whole_file[3001:]
    for broken in (b"", b"nonsense", whole_file[:-100], flipped):
        newest = sorted((tmp_path / "checkpoints").iterdir())[-1]
        newest.write_bytes(broken)
        model = make_network()
        assert train(tmp_path, params, model) == expected
        assert equal(model.state_dict(), whole.state_dict())
        assert f"warning: {newest}: the checkpoint is damaged; the one before it is used" in capfd.readouterr().err


def test_key_parts_code_and_machine_are_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def saved(*key_parts: object) -> Checkpoints:
        return Checkpoints.for_stage(tmp_path, "fine-tune", *key_parts)

    saved("a", {"lr": 0.1}).save({"x": torch.ones(2)}, 1)
    assert saved("a", {"lr": 0.1}).load() is not None
    assert saved("a", {"lr": 0.2}).load() is None
    assert saved("b", {"lr": 0.1}).load() is None
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert saved("a", {"lr": 0.1}).load() is None, "another number of threads may add in another order"
    monkeypatch.undo()
    monkeypatch.setattr(checkpoint, "_code_digest", lambda: "edited")
    assert saved("a", {"lr": 0.1}).load() is None


def test_a_full_disk_is_one_warning_and_training_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkpoint, "SAVE_INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "MAX_WRITE_SHARE", math.inf)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    found = train(tmp_path, make_params(), make_network())
    assert found.epochs == 4
    err = capfd.readouterr().err
    assert err.count("warning: no checkpoint: ") == 1
    assert "No space left on device" in err
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize(("write_seconds", "count"), [(0.0625, 50), (3.0, 17), (30.0, 2)])
def test_writing_takes_at_most_a_twentieth_of_the_time_on_a_slow_disk(
    tmp_path: Path, write_seconds: float, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand steps of a second each; a clock that stands still but for steps and writes."""
    now, written = [0.0], []

    def write(*_: object) -> None:
        now[0] += write_seconds
        written.append(now[0])

    monkeypatch.setattr("headstart.training.checkpoint.time.monotonic", lambda: now[0])
    monkeypatch.setattr(torch, "save", write)
    saves = Checkpoints(tmp_path / "checkpoints")
    for number in range(1000):
        now[0] += 1
        if saves.due():
            saves.save({}, number)
    assert len(written) == count
    pauses = [after - write_seconds - before for before, after in itertools.pairwise(written)]
    assert all(pause >= max(20, 20 * write_seconds) for pause in pauses)
    assert sum(write_seconds for _ in pauses) <= 0.05 * (written[-1] - written[0])


def test_a_folder_that_cannot_be_is_one_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    saves = Checkpoints(tmp_path / "checkpoints/key")
    saves.save({"x": torch.ones(1)}, 1)
    saves.save({"x": torch.ones(1)}, 2)
    assert capfd.readouterr().err.count("warning: no checkpoint: ") == 1
    assert saves.load() is None


@pytest.mark.usefixtures("always")
def test_auto_stopped_after_any_step_ends_in_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the annealing begins, and what it begins from, is restored."""
    monkeypatch.setattr(loop_state, "AUTO_ANNEAL_EPOCHS", 2)
    monkeypatch.setattr(schedule, "AUTO_ANNEAL_EPOCHS", 2)
    params, whole = make_params(epochs="auto", patience=1, lr=0.4, weight_decay=0.1, ema=0.5), make_network()
    expected = train(tmp_path / "whole", params, whole)
    assert 4 <= expected.epochs <= 12
    for death in range(1, STEPS * expected.epochs):

        def spoil(epoch: int, step: int, death: int = death) -> float:
            if (epoch - 1) * STEPS + step == death:
                raise DiedError
            return 1.0

        with pytest.raises(DiedError):
            train(tmp_path / str(death), params, make_network(), spoil=spoil)
        model = make_network()
        assert train(tmp_path / str(death), params, model) == expected
        assert equal(model.state_dict(), whole.state_dict()), death
        assert read_history(tmp_path / str(death)) == read_history(tmp_path / "whole")


@pytest.mark.usefixtures("always")
def test_a_loss_that_is_not_finite_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    def spoil(epoch: int, step: int) -> float:
        return float("nan") if (epoch, step) == (3, 1) else 1.0

    for _ in range(2):
        with pytest.raises(UserError, match="in epoch 3, batch 2"):
            train(tmp_path, make_params(), make_network(), spoil=spoil)
        found = Checkpoints(tmp_path / "checkpoints").load()
        assert found is not None
        assert found["position"][:2] == [3, 1]
        assert all(torch.isfinite(tensor).all() for tensor in found["network"].values())


@pytest.mark.usefixtures("always")
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finite loss can have a gradient that is not."""
    step, steps = AdamW.step, iter(range(100))

    def broken(self: AdamW, rate: float) -> None:
        step(self, math.nan if next(steps) == 6 else rate)

    monkeypatch.setattr(AdamW, "step", broken)
    with pytest.raises(UserError, match="the loss is nan in epoch 3, batch 2"):
        train(tmp_path, make_params(), make_network())
    found = Checkpoints(tmp_path / "checkpoints").load()
    assert found is not None
    assert found["position"][:2] == [3, 0]
    assert all(torch.isfinite(tensor).all() for tensor in found["network"].values())


@pytest.mark.parametrize("epoch", [1, 4])
def test_a_signal_during_validation(tmp_path: Path, epoch: int) -> None:
    """Its metrics are in the checkpoint: they are not computed anew, not even the last ones."""
    losses, seen = [9, 5, 6, 4, 8.0], list[int]()

    def validate() -> ValMetrics:
        seen.append(len(seen))
        if len(seen) == epoch + 1:
            os.kill(os.getpid(), signal.SIGINT)
        return {"val_loss": losses[seen[-1]]}

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, make_params(), make_network(), validate)
    assert len(seen) == epoch + 1
    found = train(tmp_path, make_params(), make_network(), validate)
    assert found == BestEpoch(3, 4, {"val_loss": 4})
    assert len(seen) == 5


def test_only_finished_checkpoints_are_removed(tmp_path: Path) -> None:
    ended, under_way, other = (
        Checkpoints.for_stage(tmp_path, stage, fact)
        for stage, fact in (("fine-tune", 1), ("fine-tune", 2), ("train-head", 1))
    )
    for each in (ended, under_way, other):
        each.save({"x": torch.ones(1)}, 1)
    ended.mark_finished()
    other.mark_finished()
    assert ended.load(), "until DVC has recorded the stage, it may have to run again"
    checkpoint.remove_finished(tmp_path, "fine-tune")
    assert not ended.load()
    assert under_way.load()
    assert other.load()


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_after_a_signal_it_ends_the_step_saves_and_prints_where(
    tmp_path: Path, number: int, error: type[BaseException], capfd: pytest.CaptureFixture[str]
) -> None:
    whole = make_network()
    expected = train(tmp_path / "whole", make_params(), whole)
    before = signal.getsignal(number)

    def ask(epoch: int, step: int) -> float:
        if (epoch, step) == (2, 1):
            os.kill(os.getpid(), number)
        return 1.0

    with pytest.raises(error):
        train(tmp_path, make_params(), make_network(), spoil=ask)
    assert signal.getsignal(number) is before
    assert "train-head: stopped in epoch 2 after batch 2 of 3; `dvc repro` resumes" in capfd.readouterr().out
    model = make_network()
    assert train(tmp_path, make_params(), model) == expected
    assert equal(model.state_dict(), whole.state_dict())
    assert "train-head: resumes in epoch 2, after batch 2 of 3" in capfd.readouterr().out


SCRIPT = """
import os, sys
from pathlib import Path
import timm
from headstart.training import checkpoint
from headstart import tasks
from headstart.params.root import Params
checkpoint.SAVE_INTERVAL, checkpoint.MAX_WRITE_SHARE = 0.0, float("inf")
for line in sys.stdin:
    folder, given = line.split("\t")
    if not (child := os.fork()):
        root = Path(folder)
        out = os.open(root / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        tasks.run("fine-tune", Params.model_validate_json(given), root)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def forge() -> "Iterator[subprocess.Popen[str]]":
    """A process that has paid for the imports: each attempt is a process of its own, forked from it."""
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


@pytest.mark.parametrize("cached", [False, True])
def test_killed_for_real_again_and_again(
    project: Project, tmp_path: Path, forge: "subprocess.Popen[str]", cached: bool
) -> None:
    """kill -9 as soon as there are new checkpoints, three times; then it runs to its end."""
    params = tiny.make_params(fine_tune={"epochs": 20, "cache_frozen": cached})
    models = []
    for name, kills in (("undisturbed", 0), ("killed", 3)):
        root = tmp_path / name
        for stage in ("fetch", "split", "augment", "train-head"):
            shutil.copytree(project.root / "stages" / stage, root / "stages" / stage)
        for _ in range(kills):
            assert attempt(forge, root, params, kill=True) == signal.SIGKILL
            assert not (root / "stages/fine-tune/model.safetensors").exists()
            shutil.rmtree(root / "stages/fine-tune", ignore_errors=True)  # as DVC does before it runs the stage
        status, output = attempt(forge, root, params), (root / "output.txt").read_text()
        assert status == 0, output
        assert ("fine-tune: resumes in epoch" in output) == (kills > 0)
        assert list((root / ".cache/checkpoints").rglob("*.pt")), "DVC has not yet recorded the stage"
        checkpoint.remove_finished(root, "fine-tune")
        assert not list((root / ".cache/checkpoints").rglob("*.pt")), "done: no longer needed"
        models.append(
            [(root / "stages/fine-tune" / file).read_bytes() for file in ("model.safetensors", "history.csv")]
        )
    assert models[0] == models[1]


def attempt(forge: "subprocess.Popen[str]", root: Path, params: Params, *, kill: bool = False) -> int:
    """Fine-tune in `root`, or kill that as soon as there is a new checkpoint; returns what os.waitpid reports."""
    assert forge.stdin
    assert forge.stdout
    before = set((root / ".cache").rglob("*.pt"))
    forge.stdin.write(f"{root}\t{params.model_dump_json(by_alias=True)}\n")
    forge.stdin.flush()
    child = int(forge.stdout.readline())
    while kill and not set((root / ".cache").rglob("*.pt")) - before and psutil.pid_exists(child):
        time.sleep(0.01)
    if kill:
        os.kill(child, signal.SIGKILL)
    return int(forge.stdout.readline())
