"""`make repro` in clones: the sample's, a colleague's with a DVC remote between, and what `dvc push` must never do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from clone import ROOT, TINY, merged

SETTINGS = {"GIT_CONFIG_GLOBAL": os.devnull, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
GIT = ("git", "-c", "user.name=t", "-c", "user.email=t@t")


def run(folder: Path, *command: str, code: int = 0) -> str:
    quiet = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DVC_"))}
    done = subprocess.run(
        command,
        cwd=folder,
        env=quiet | SETTINGS | {"PYTHONPATH": "src"},
        text=True,
        capture_output=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def make_repro(folder: Path, *stages: str, code: int = 0) -> str:
    """`make repro` with the environment that the tests run in; of the pipeline, only up to a stage if one is named."""
    makefile = folder / "Makefile.part"
    text = (folder / "Makefile").read_text()
    assert "@dvc repro\n" in text
    makefile.write_text(text.replace("@dvc repro\n", f"@dvc repro {' '.join(stages)}\n"))
    try:
        return run(folder, "make", "-f", makefile.name, "--old-file", ".venv/ready", "repro", code=code)
    finally:
        makefile.unlink()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh clone of this working tree."""
    start, folder = tmp_path / "start", tmp_path / "clone"
    for name in run(ROOT, "git", "ls-files", "-co", "--exclude-standard").splitlines():
        if (ROOT / name).is_file():
            (start / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, start / name)
    run(start, "git", "init", "-q")
    run(start, "git", "add", "-A")
    run(start, *GIT, "commit", "-q", "-m", "start")
    run(tmp_path, "git", "clone", "-q", str(start), str(folder))
    return folder


def photographs(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(16):
        path = folder / f"data/pets/{('cat', 'dog')[number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((48, 48), Image.Resampling.NEAREST).save(path)


def use_photographs(folder: Path) -> None:
    photographs(folder)
    sample = yaml.safe_load((folder / "params.yaml").read_text())
    params = merged(sample, {**TINY, "fetch": {"sources": [{"folder": "data/pets"}]}})
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def test_a_fresh_clone_gets_the_sample_from_git(clone: Path) -> None:
    assert "sample data: samples/solar-cells.csv becomes data/" in make_repro(clone, "weights")
    assert (clone / "data/solar-cells.csv").read_bytes() == (ROOT / "samples/solar-cells.csv").read_bytes()
    assert run(clone, "git", "status", "--porcelain", "--", "data.dvc") == ""  # the table is what data.dvc names


def test_what_make_does_not_find_is_named(clone: Path) -> None:
    make = ("make", "--old-file", ".venv/ready", "repro")
    (clone / "data.dvc").unlink()
    assert "data.dvc: not there, nor data/; take it back (git checkout data.dvc)" in run(clone, *make, code=2)
    (clone / "data").mkdir()
    said = run(clone, *make, "RECIPE=zebra", code=2)
    assert "recipes/zebra.yaml: no such recipe; there are: alpaca cats-dogs " in said
    assert (clone / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()
    (clone / "data").rmdir()
    run(clone, "git", "checkout", "-q", "data.dvc")
    shutil.rmtree(clone / ".dvc")
    assert "not inside of a DVC repository" in run(clone, *make, code=2), "in DVC's own words"


def test_a_colleagues_clone_pulls_from_the_remote_that_holds_the_data(clone: Path, tmp_path: Path) -> None:
    use_photographs(clone)
    run(clone, "dvc", "remote", "add", "-q", "-d", "store", str(tmp_path / "store"))
    assert "pushed" in make_repro(clone, "split") + run(clone, "dvc", "push")
    run(clone, "git", "add", "-A")
    run(clone, *GIT, "commit", "-q", "-m", "photographs")
    colleague = tmp_path / "colleague"
    run(tmp_path, "git", "clone", "-q", str(clone), str(colleague))
    said = make_repro(colleague)
    assert "data: dvc pull data" in said
    assert "A       data/" in said  # DVC's own words
    assert (colleague / "data/pets/cat/0.png").read_bytes() == (clone / "data/pets/cat/0.png").read_bytes()
    assert (colleague / "stages/evaluate/report.html").is_file()
    assert run(colleague, "git", "status", "--porcelain", "--", "data.dvc") == ""


def test_data_that_no_remote_has_is_an_error_in_dvcs_words(clone: Path, tmp_path: Path) -> None:
    use_photographs(clone)
    run(clone, "dvc", "add", "-q", "data")
    run(clone, *GIT, "commit", "-q", "-a", "-m", "photographs, never pushed")
    colleague = tmp_path / "colleague"
    run(tmp_path, "git", "clone", "-q", str(clone), str(colleague))
    said = make_repro(colleague, code=2)
    assert "ERROR: failed to pull data from the cloud" in said
    assert "no remote" in said.lower()
    assert not (colleague / "stages/fetch/annotations.json").exists()


def test_no_push_puts_a_photograph_into_the_git_tree(clone: Path) -> None:
    use_photographs(clone)
    run(clone, "dvc", "add", "-q", "data")
    said = run(clone, "dvc", "push", code=1)
    assert "no remote" in said.lower()
    run(clone, "git", "add", "-A")
    assert run(clone, "git", "diff", "--cached", "--name-only").splitlines() == ["data.dvc", "params.yaml"]


def test_a_picture_added_behind_a_link_is_fetched(clone: Path, tmp_path: Path) -> None:
    """DVC hashes a link to a folder as an empty folder."""
    use_photographs(clone)
    (clone / "data/pets").rename(tmp_path / "disk")
    (clone / "data/pets").symlink_to(tmp_path / "disk")
    assert "DVC does not see data/pets" in run(clone, "dvc", "repro", "fetch")
    assert "Stage 'fetch' didn't change, skipping" in run(clone, "dvc", "repro", "fetch")
    Image.new("RGB", (48, 48), "red").save(tmp_path / "disk/cat/new.png")
    assert "fetch: 17 pictures" in run(clone, "dvc", "repro", "fetch")
