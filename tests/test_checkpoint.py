"""Training that was stopped goes on, and ends in the same bits as training that was not."""

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

import test_fit
import tiny
from conftest import Project
from headstart import checkpoint
from headstart.adamw import AdamW
from headstart.checkpoint import Checkpoints, Stop
from headstart.errors import UserError
from headstart.fit_state import Best, Scores


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step."""
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)


class DiedError(Exception):
    """What a kill is to a test within one process."""


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("ema", [0, 0.9])
@pytest.mark.parametrize("patience", [0, 2])
@pytest.mark.parametrize("more", [{}, {"accumulate": 2, "clip_norm": 0.3}])
def test_stopped_after_any_step_it_ends_in_the_same_bits(
    tmp_path: Path, ema: float, patience: int, more: dict[str, float]
) -> None:
    """Dropout, batch norm, moments, average, best epoch and history: all of it goes on."""
    params = test_fit.make(ema=ema, weight_decay=0.1, warmup_epochs=1, patience=patience, **more)
    whole = test_fit.network()
    expected = test_fit.run(tmp_path / "whole", params, whole)
    steps = test_fit.STEPS * params.most_epochs()
    for death in range(1, steps + 1):
        folder, seen = tmp_path / str(death), 0

        def spoil(epoch: int, step: int, death: int = death) -> float:
            if (epoch - 1) * test_fit.STEPS + step == death:
                raise DiedError
            return 1.0

        try:
            test_fit.run(folder, params, test_fit.network(), spoil=spoil)
        except DiedError:
            seen = 1
        model = test_fit.network()
        assert test_fit.run(folder, params, model) == expected
        assert test_fit.same(model.state_dict(), whole.state_dict()), death
        assert (folder / "history.csv").read_bytes() == (tmp_path / "whole/history.csv").read_bytes()
        assert seen or death == steps or patience


@pytest.mark.usefixtures("always")
def test_the_last_two_are_kept_and_a_broken_one_is_passed_over(tmp_path: Path) -> None:
    params, whole = test_fit.make(), test_fit.network()
    expected = test_fit.run(tmp_path, params, whole)
    files = sorted((tmp_path / "checkpoints").iterdir())
    assert [file.name for file in files] == ["000000000011.pt", "000000000012.pt"]
    for broken in (b"", b"nonsense", files[1].read_bytes()[:-100]):
        files[1].write_bytes(broken)
        model = test_fit.network()
        assert test_fit.run(tmp_path, params, model) == expected
        assert test_fit.same(model.state_dict(), whole.state_dict())


def test_facts_are_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def saved(*facts: object) -> Checkpoints:
        return Checkpoints.of(tmp_path, "fine-tune", *facts)

    saved("a", {"lr": 0.1}).save({"x": torch.ones(2)}, 1)
    assert saved("a", {"lr": 0.1}).load() is not None
    assert saved("a", {"lr": 0.2}).load() is None
    assert saved("b", {"lr": 0.1}).load() is None
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert saved("a", {"lr": 0.1}).load() is None, "another number of threads may add in another order"
    monkeypatch.undo()
    monkeypatch.setattr(checkpoint, "_code", lambda: "edited")
    assert saved("a", {"lr": 0.1}).load() is None


def test_a_full_disk_is_one_warning_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    found = test_fit.run(tmp_path, test_fit.make(), test_fit.network())
    assert found.epochs == 4
    err = capfd.readouterr().err
    assert err.count("warning: no checkpoint: ") == 1
    assert "No space left on device" in err
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.usefixtures("always")
def test_a_loss_that_is_no_number_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    def spoil(epoch: int, step: int) -> float:
        return float("nan") if (epoch, step) == (3, 1) else 1.0

    for _ in range(2):
        with pytest.raises(UserError, match="in epoch 3, batch 2"):
            test_fit.run(tmp_path, test_fit.make(), test_fit.network(), spoil=spoil)
        found = Checkpoints(tmp_path / "checkpoints").load()
        assert found is not None
        assert found["place"][:2] == [3, 1]
        assert all(torch.isfinite(tensor).all() for tensor in found["network"].values())


@pytest.mark.usefixtures("always")
def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finite loss can have a gradient that is not."""
    step, steps = AdamW.step, iter(range(100))

    def broken(self: AdamW, rate: float) -> None:
        step(self, math.nan if next(steps) == 6 else rate)

    monkeypatch.setattr(AdamW, "step", broken)
    with pytest.raises(UserError, match="the loss is nan in epoch 3, batch 2"):
        test_fit.run(tmp_path, test_fit.make(), test_fit.network())
    found = Checkpoints(tmp_path / "checkpoints").load()
    assert found is not None
    assert found["place"][:2] == [3, 0]
    assert all(torch.isfinite(tensor).all() for tensor in found["network"].values())


@pytest.mark.parametrize("epoch", [1, 4])
def test_asked_to_stop_while_it_validates(tmp_path: Path, epoch: int) -> None:
    """The scores are kept: they are not computed anew, not even the last ones."""
    losses, seen = [9, 5, 6, 4, 8.0], list[int]()

    def validate() -> Scores:
        seen.append(len(seen))
        if len(seen) == epoch + 1:
            os.kill(os.getpid(), signal.SIGINT)
        return {"val_loss": losses[seen[-1]]}

    with pytest.raises(KeyboardInterrupt):
        test_fit.run(tmp_path, test_fit.make(), test_fit.network(), validate)
    assert len(seen) == epoch + 1
    found = test_fit.run(tmp_path, test_fit.make(), test_fit.network(), validate)
    assert found == Best(3, 4, {"val_loss": 4})
    assert len(seen) == 5


def test_only_ended_trainings_are_swept(tmp_path: Path) -> None:
    ended, under_way, other = (
        Checkpoints.of(tmp_path, stage, fact) for stage, fact in (("fine-tune", 1), ("fine-tune", 2), ("train-head", 1))
    )
    for each in (ended, under_way, other):
        each.save({"x": torch.ones(1)}, 1)
    ended.done()
    other.done()
    assert ended.load(), "until DVC has recorded the stage, it may have to run again"
    checkpoint.sweep(tmp_path, "fine-tune")
    assert not ended.load()
    assert under_way.load()
    assert other.load()


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_asked_to_stop_it_ends_the_step_saves_and_says_so(
    tmp_path: Path, number: int, error: type[BaseException], capfd: pytest.CaptureFixture[str]
) -> None:
    whole = test_fit.network()
    expected = test_fit.run(tmp_path / "whole", test_fit.make(), whole)
    before = signal.getsignal(number)

    def ask(epoch: int, step: int) -> float:
        if (epoch, step) == (2, 1):
            os.kill(os.getpid(), number)
        return 1.0

    with pytest.raises(error):
        test_fit.run(tmp_path, test_fit.make(), test_fit.network(), spoil=ask)
    assert signal.getsignal(number) is before
    assert "train-head: stopped in epoch 2 after batch 2 of 3; `dvc repro` goes on" in capfd.readouterr().out
    model = test_fit.network()
    assert test_fit.run(tmp_path, test_fit.make(), model) == expected
    assert test_fit.same(model.state_dict(), whole.state_dict())
    assert "train-head: goes on in epoch 2, after batch 2 of 3" in capfd.readouterr().out


def test_asked_twice_it_does_not_wait() -> None:
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


SCRIPT = """
import os, sys
from pathlib import Path
import timm
from headstart import checkpoint
from headstart.fine_tune import fine_tune
from headstart.params import Params
params = Params.model_validate_json(sys.argv[1])
checkpoint.EVERY = 0.0
for folder in sys.stdin:
    if not (child := os.fork()):
        root = Path(folder.strip())
        out = os.open(root / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        fine_tune(params, root)
        sys.exit()
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.mark.parametrize("cached", [False, True])
def test_killed_for_real_again_and_again(project: Project, tmp_path: Path, cached: bool) -> None:
    """kill -9 as soon as there are new checkpoints, three times; then it is let through.

    Each attempt is a process of its own, forked from one that has paid for the imports.
    """
    params = tiny.make_params(fine_tune={"epochs": 20, "cache_frozen": cached})
    models = []
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, params.model_dump_json(by_alias=True)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as forge:
        for name, kills in (("undisturbed", 0), ("killed", 3)):
            root = tmp_path / name
            for stage in ("fetch", "split", "augment", "train-head"):
                shutil.copytree(project.root / "stages" / stage, root / "stages" / stage)
            for _ in range(kills):
                assert attempt(forge, root, kill=True) == signal.SIGKILL
                assert not (root / "stages/fine-tune/model.safetensors").exists()
                shutil.rmtree(root / "stages/fine-tune", ignore_errors=True)  # as DVC does before it runs the stage
            status, said = attempt(forge, root), (root / "said.txt").read_text()
            assert status == 0, said
            assert ("fine-tune: goes on in epoch" in said) == (kills > 0)
            assert list((root / ".cache/checkpoints").rglob("*.pt")), "DVC has not yet recorded the stage"
            checkpoint.sweep(root, "fine-tune")
            assert not list((root / ".cache/checkpoints").rglob("*.pt")), "done: no longer needed"
            models.append(
                [(root / "stages/fine-tune" / file).read_bytes() for file in ("model.safetensors", "history.csv")]
            )
    assert models[0] == models[1]


def attempt(forge: "subprocess.Popen[str]", root: Path, *, kill: bool = False) -> int:
    """Fine-tune in `root`, or kill that as soon as there is a new checkpoint; how the process ended, as wait says."""
    assert forge.stdin
    assert forge.stdout
    before = set((root / ".cache").rglob("*.pt"))
    forge.stdin.write(f"{root}\n")
    forge.stdin.flush()
    child = int(forge.stdout.readline())
    while kill and not set((root / ".cache").rglob("*.pt")) - before and psutil.pid_exists(child):
        time.sleep(0.01)
    if kill:
        os.kill(child, signal.SIGKILL)
    return int(forge.stdout.readline())
