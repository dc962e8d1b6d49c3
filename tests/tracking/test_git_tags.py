import os
import subprocess
from pathlib import Path

import pytest

from headstart.tracking import git_tags as module
from headstart.tracking.git_tags import git_patch, git_tags


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in list(os.environ):
        if variable.startswith("GIT_"):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return tmp_path


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit_files(root: Path, *names: str) -> str:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("1\n")
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "first")
    return git(root, "rev-parse", "HEAD")


def test_the_commit_and_whether_the_code_has_changed(root: Path) -> None:
    written = ("dvc.lock", "data.dvc", "stages/metrics.json", "stages/fetch/.gitignore", ".gitignore")  # by dvc repro
    unread = ("README.md", "docs/detectors.md", "tests/test_a.py")
    commit = commit_files(root, "src/train.py", "params.yaml", *written, *unread)
    for name in (*written, *unread, "untracked.txt"):
        (root / name).write_text("2")
    (root / "src/train.py").touch()
    assert git_tags(root) == {"mlflow.source.git.commit": commit, "headstart.dirty": "false"}
    assert git_patch(root) == ""
    (root / "src/train.py").write_text("2\n")
    (root / "params.yaml").write_text("3\n")
    assert git_tags(root)["headstart.dirty"] == "true"
    patch = git_patch(root)
    assert "+2" in patch
    assert "+3" in patch
    assert "metrics.json" not in patch
    git(root, "add", "--update")  # what is staged differs from the commit too
    assert git_patch(root) == patch


def test_a_new_module_is_a_difference(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    commit_files(root, "src/train.py", ".gitignore")
    (root / ".gitignore").write_text("__pycache__/\n")
    (root / "src/__pycache__").mkdir()
    (root / "src/__pycache__/a.pyc").touch()
    (root / "notes.txt").touch()
    assert git_tags(root)["headstart.dirty"] == "false"
    (root / "src/wing").mkdir()
    (root / "src/wing/größe.py").write_text("3\n")
    status = git(root, "status", "--porcelain")
    assert git_tags(root)["headstart.dirty"] == "true"
    assert git(root, "status", "--porcelain") == status, "the user's index stays as it is"
    other = tmp_path_factory.mktemp("other") / "clone"
    git(root, "clone", "--quiet", str(root), str(other))
    (other / "diff.patch").write_text(git_patch(root))
    git(other, "apply", "diff.patch")
    assert (other / "src/wing/größe.py").read_text() == "3\n"


def test_the_patch_makes_the_code_of_the_run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    commit_files(root, "src/train.py")
    other = tmp_path_factory.mktemp("other") / "clone"
    git(root, "clone", "--quiet", str(root), str(other))
    (root / "src/train.py").write_text("größer\n")
    (other / "diff.patch").write_text(git_patch(root))
    git(other, "apply", "diff.patch")
    assert (other / "src/train.py").read_text() == "größer\n"


def test_a_long_patch_is_cut_and_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit_files(root, "train.py")
    (root / "train.py").write_text("x" * 5000)
    monkeypatch.setattr(module, "MAX_PATCH", 1000)
    patch = git_patch(root)
    assert 1000 < len(patch) < 1100
    assert patch.splitlines()[-1].startswith("# cut here: 1,000 of 5,")


def test_a_subfolder_of_a_repository_is_judged_by_itself(root: Path) -> None:
    commit_files(root, "other/a.py", "project/src/train.py", "project/stages/metrics.json")
    (root / "other/a.py").write_text("2")
    (root / "project/stages/metrics.json").write_text("2")
    assert git_tags(root / "project")["headstart.dirty"] == "false"


def test_it_is_unknown_without_a_commit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_tags(root) == {"headstart.dirty": "unknown"}
    git(root, "init", "--quiet")
    assert git_tags(root) == {"headstart.dirty": "unknown"}
    assert git_patch(root) == ""
    monkeypatch.setenv("PATH", "")
    assert git_tags(root) == {"headstart.dirty": "unknown"}
