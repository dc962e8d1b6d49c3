"""The command line: quick to help, one line for a mistake, one command a stage."""

import errno
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import headstart
from headstart import cli, tasks

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "torchvision", "timm", "mlflow", "sklearn", "scipy", "matplotlib", "onnxruntime", "pandas", "numpy")


def headstart_command(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command as a user runs it, in a folder."""
    source = str(Path(headstart.__file__).parent.parent)
    return subprocess.run(
        [sys.executable, "-c", "from headstart.cli import main; main()", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": source, "RANK": "1"},  # only the first process records: no MLflow here
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_does_not_pay_for_torch() -> None:
    code = (
        "import sys\nfrom headstart.cli import main\nsys.argv = ['headstart', '--help']\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    assert not ended.code\n"
        f"print('loaded', [name for name in {HEAVY} if name in sys.modules])"
    )
    source = str(Path(headstart.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("loaded []\n")
    assert all(command in done.stdout for command in [*tasks.STAGES, "predict", "serve", "demo", "cache", "lr-find"])


def test_a_classifiers_stages_import_nothing_of_a_detector() -> None:
    """Seconds of each start-up: scikit-learn and matplotlib are for the evaluation, pycocotools for boxes."""
    code = (
        "import sys\nimport headstart.augment.stage, headstart.training.train_head, headstart.training.fine_tune\n"
        "import headstart.export.stage, headstart.export.onnx_classifier\n"
        "heavy = {'timm', 'mlflow', 'sklearn', 'scipy', 'matplotlib', 'onnxruntime', 'pandas', 'pycocotools'}\n"
        "boxes = {'headstart.models.detector', 'headstart.export.onnx_detector', "
        "'headstart.training.detector_batches', 'headstart.evaluation.detector.evaluate'}\n"
        "print('trained with', sorted((heavy | boxes) & sys.modules.keys()))\n"
        "import headstart.evaluation.stage, headstart.evaluation.classifier.evaluate\n"
        "print('evaluated with', sorted((boxes | {'pycocotools'}) & sys.modules.keys()))"
    )
    source = str(Path(headstart.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": source}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "trained with []\nevaluated with []\n"


def test_every_stage_is_a_command_and_names_a_function_that_is_there() -> None:
    commands = {str(info.name or getattr(info.callback, "__name__", "")) for info in cli.app.registered_commands}
    assert commands == {*tasks.STAGES, "outside", "predict", "serve", "demo", "lr-find"}
    for task in tasks.TASKS.values():
        for stage in set(tasks.STAGES) - {"weights"}:
            assert callable(getattr(task, stage.replace("-", "_")))


@pytest.mark.parametrize("stage", tasks.STAGES)
def test_a_command_runs_the_stage_of_its_name(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(cli, "run_stage", ran.append)
    assert CliRunner().invoke(cli.app, [stage]).exit_code == 0
    assert ran == [stage]


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = headstart_command(tmp_path, "split")
    assert done.returncode == 2
    assert done.stderr == "error: params.yaml: no such file; copy one: cp recipes/solar-cells.yaml params.yaml\n"
    assert done.stdout == ""


def test_a_mistake_that_a_stage_finds_is_one_line_too(tmp_path: Path) -> None:
    shutil.copy(ROOT / "recipes/solar-cells.yaml", tmp_path / "params.yaml")
    done = headstart_command(tmp_path, "fetch")
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == done.stderr.splitlines()
    assert "data/solar-cells.csv" in done.stderr
    assert "Traceback" not in done.stdout


def test_a_letter_that_the_terminal_has_not_is_printed_as_its_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stage(name: str) -> None:
        print(f"{name}: 12 größe")

    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(cli, "run_stage", stage)
    monkeypatch.setattr(sys, "argv", ["headstart", "split"])
    monkeypatch.setattr(sys, "stdout", terminal)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    terminal.seek(0)
    assert terminal.read() == "split: 12 gr\\xf6\\xdfe\n"


def test_our_own_mistakes_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ZeroDivisionError(name)

    monkeypatch.setattr(cli, "run_stage", broken)
    monkeypatch.setattr(sys, "argv", ["headstart", "split"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", ".cache/x"), 2, "error: .cache/x: no room left on this disk"),
        (KeyboardInterrupt(), 130, "split: stopped; `dvc repro` goes on with what is cached"),
        (KeyboardInterrupt(2), 130, ""),
    ],
)
def test_a_full_disk_and_ctrl_c_are_one_line(
    tmp_path: Path,
    error: BaseException,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANK", "1")  # only the first process records: no MLflow here
    monkeypatch.setattr("headstart.split.stage.split", broken)
    monkeypatch.setattr(sys, "argv", ["headstart", "split"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    said = capsys.readouterr().err
    assert said.startswith(line)
    assert said.count("\n") == bool(line)


@pytest.mark.parametrize(("stage", "code"), [("split", 0), ("fetch", 2)])
def test_the_end_loses_nothing(tmp_path: Path, stage: str, code: int) -> None:
    """Torch's modules are not torn down; output and what was registered for the end come first."""
    script = (
        "import atexit, sys\nfrom headstart import cli, tasks\nfrom headstart.base.errors import UserError\n"
        "def done(*_):\n    atexit.register(print, 'at the end')\n    print('x' * 100_000)\n"
        "def wrong(*_):\n    done()\n    raise UserError('a mistake')\n"
        "class Part:\n    def __del__(self):\n        print('torn down')\n"
        "part = Part()\ntasks.load = lambda stage, params: done if stage == 'split' else wrong\n"
        "sys.argv[0] = '/somewhere/bin/headstart'\ncli.main()"
    )
    shutil.copy(ROOT / "params.yaml", tmp_path)
    source = str(Path(headstart.__file__).parent.parent)
    ended = subprocess.run(
        [sys.executable, "-c", script, stage],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": source, "RANK": "1", "WORLD_SIZE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == "x" * 100_000 + "\nat the end\n" + "torn down\n" * bool(code)
    assert ended.stderr == "error: a mistake\n" * bool(code)


def test_without_a_command_there_is_help() -> None:
    shown = CliRunner().invoke(cli.app, []).output
    assert "train-head" in shown
    assert "dvc repro" in shown
