"""A full disk, a quota, a forbidden folder, a missing picture: one line, nothing half left, and it goes on afterwards.

Real ones: file sizes limited by the kernel, a disk of a megabyte, permissions that bind.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import tiny
from conftest import Project

# Commands in processes of their own, forked from one that has paid for the imports.
SCRIPT = """
import json, os, resource, sys
import timm
import headstart.augment.stage, headstart.evaluation.stage, headstart.evaluation.classifier.evaluate
import headstart.training.fine_tune, headstart.training.classifier_batches, headstart.training.train_head
from headstart import cli
from headstart.tracking import recorder
recorder._start_process = lambda: None
for line in sys.stdin:
    folder, stage, largest_file = json.loads(line)
    if not (child := os.fork()):
        os.chdir(folder)
        for number in (1, 2):
            os.dup2(os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        if largest_file:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
        sys.argv, code = ["headstart", stage], 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
# Root may read and write all, unless it gives up the capabilities for that.
UNPRIVILEGED = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
UNPRIVILEGED += ["--inh-caps=-dac_override,-dac_read_search"]


@pytest.fixture(scope="module")
def forge() -> "Iterator[subprocess.Popen[str]]":
    is_root = hasattr(os, "getuid") and os.getuid() == 0
    with subprocess.Popen(
        [*(UNPRIVILEGED if is_root and shutil.which("setpriv") else ()), sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


@pytest.fixture
def root(project: Project, tmp_path: Path) -> Path:
    """The finished project, as if only what a test runs had yet to run."""
    root = tmp_path / "project"
    shutil.copytree(project.root, root)
    shutil.rmtree(root / ".cache")
    params = json.loads(project.params.model_dump_json(by_alias=True, exclude_defaults=True))
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    return root


def run(forge: "subprocess.Popen[str]", root: Path, stage: str, largest_file: int = 0) -> tuple[int, str]:
    """Exit code and output of a command."""
    assert forge.stdin
    assert forge.stdout
    (root / "output.txt").unlink(missing_ok=True)
    forge.stdin.write(json.dumps([str(root), stage, largest_file]) + "\n")
    forge.stdin.flush()
    code = int(forge.stdout.readline())
    return code, (root / "output.txt").read_text()


def assert_one_line(found: tuple[int, str], *words: str) -> None:
    code, output = found
    lines = [line for line in output.splitlines() if line.startswith("error: ")]
    assert (code, len(lines)) == (2, 1), output
    assert "Traceback" not in output
    assert all(word in lines[0] for word in words), lines[0]


def assert_goes_on(forge: "subprocess.Popen[str]", root: Path, stage: str, expected: Path) -> None:
    """No part is left, and the same command ends with the same files as one that nothing stopped."""
    assert not list(root.rglob("*.part"))
    code, output = run(forge, root, stage)
    assert code == 0, output
    for path in (expected / "stages" / stage).iterdir():
        if path.suffix in (".safetensors", ".json"):
            assert (root / "stages" / stage / path.name).read_bytes() == path.read_bytes(), path.name


@contextlib.contextmanager
def full_disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of its own for a folder, with so little room."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    ("stage", "largest_file", "path"),
    [
        ("split", 2_000, ".cache/embeddings/"),
        ("augment", 5_000, "stages/augment/preview.jpg"),
        ("train-head", 5_000, ".cache/embeddings/"),
        ("train-head", 100_000, "stages/train-head/model.safetensors"),
        ("fine-tune", 20_000, ".cache/pixels/"),
        ("fine-tune", 100_000, "stages/fine-tune/model.safetensors"),
        ("evaluate", 12_000, ".cache/pixels/"),
    ],
)
def test_a_limit_on_the_size_of_files(
    forge: "subprocess.Popen[str]", project: Project, root: Path, stage: str, largest_file: int, path: str
) -> None:
    assert_one_line(run(forge, root, stage, largest_file), f"error: {path}", "ulimit -f unlimited")
    assert_goes_on(forge, root, stage, project.root)


@pytest.mark.parametrize(
    ("stage", "folder", "size"),
    [
        ("augment", "stages/augment", "16k"),
        ("train-head", "stages/train-head", "64k"),
        ("train-head", ".cache/embeddings", "4k"),
        ("fine-tune", "stages/fine-tune", "64k"),
        ("fine-tune", ".cache/pixels", "16k"),
    ],
)
def test_a_full_disk(
    forge: "subprocess.Popen[str]", project: Project, root: Path, stage: str, folder: str, size: str
) -> None:
    with full_disk(root / folder, size):
        assert_one_line(run(forge, root, stage), f"error: {folder}/", "no room left on this disk; make some")
        assert not list(root.rglob("*.part"))
    assert_goes_on(forge, root, stage, project.root)


@pytest.mark.skipif(
    hasattr(os, "getuid") and os.getuid() == 0 and not shutil.which("setpriv"),
    reason="permissions do not bind root, and setpriv is missing",
)
@pytest.mark.parametrize(
    ("stage", "forbidden", "named"),
    [
        ("split", "stages/split", "stages/split/train.json"),
        ("augment", "stages/augment/images", "stages/augment/images/"),
        ("train-head", ".cache", ".cache/locks"),
        ("train-head", "stages/train-head", "stages/train-head/history.csv"),
        ("fine-tune", "stages/fetch/images", "stages/fetch/images/"),
        ("fine-tune", "stages/train-head/model.safetensors", "stages/train-head/model.safetensors"),
        ("evaluate", "stages/evaluate", "stages/evaluate/"),
    ],
)
def test_a_forbidden_folder(
    forge: "subprocess.Popen[str]", project: Project, root: Path, stage: str, forbidden: str, named: str
) -> None:
    path = root / forbidden
    path.parent.mkdir(parents=True, exist_ok=True)
    if forbidden == ".cache":
        path.mkdir()
    mode = path.stat().st_mode
    path.chmod(0 if path.is_file() or forbidden.startswith("stages/fetch") else 0o555)
    try:
        assert_one_line(run(forge, root, stage), f"error: {named}", "no permission; look at `ls -ld", "chmod u+rwX")
    finally:
        path.chmod(mode)
    assert_goes_on(forge, root, stage, project.root)


@pytest.mark.parametrize("stage", ["split", "augment", "train-head", "fine-tune", "evaluate"])
@pytest.mark.parametrize("damage", ["deleted", "emptied", "cut"])
def test_a_stored_picture_is_gone_or_damaged(
    forge: "subprocess.Popen[str]", project: Project, root: Path, stage: str, damage: str
) -> None:
    split = "test" if stage == "evaluate" else "train"
    path = root / tiny.manifest(root, "split", split).images[0].file_name
    whole = path.read_bytes()
    path.unlink()
    if damage != "deleted":
        path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    words = "no such file" if damage == "deleted" else "cannot be decoded"
    assert_one_line(run(forge, root, stage), f"/{path.name}: {words}", "`dvc repro` stores it again")
    path.write_bytes(whole)
    assert_goes_on(forge, root, stage, project.root)


def test_a_file_in_the_way_of_a_folder(forge: "subprocess.Popen[str]", project: Project, root: Path) -> None:
    (root / ".cache").write_bytes(b"")
    assert_one_line(run(forge, root, "split"), "error: .cache: a file lies where a folder is needed; move it away")
    (root / ".cache").unlink()
    assert_goes_on(forge, root, "split", project.root)


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied"])
@pytest.mark.parametrize(("stage", "kind"), [("train-head", "embeddings"), ("fine-tune", "pixels")])
def test_a_damaged_cache_gives_the_same_model(
    forge: "subprocess.Popen[str]", project: Project, root: Path, stage: str, kind: str, damage: str
) -> None:
    assert run(forge, root, stage)[0] == 0
    shutil.rmtree(root / ".cache/checkpoints", ignore_errors=True)
    (root / f"stages/{stage}/model.safetensors").unlink()
    path = max((root / ".cache" / kind).glob("*/*"), key=lambda path: path.stat().st_size)
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 64]) + whole[middle + 1 :]
    path.write_bytes({"flipped": flipped, "cut": whole[:middle], "emptied": b""}[damage])
    code, output = run(forge, root, stage)
    assert code == 0, output
    assert [line for line in output.splitlines() if line.startswith(f"warning: {path.relative_to(root)}: ")], output
    expected = (project.root / f"stages/{stage}/model.safetensors").read_bytes()
    assert (root / f"stages/{stage}/model.safetensors").read_bytes() == expected
