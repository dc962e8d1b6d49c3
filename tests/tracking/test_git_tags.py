import os
import subprocess
from pathlib import Path

import pytest

from headstart.tracking.git_tags import git_tags


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


def test_the_commit_and_whether_the_code_has_changed(root: Path) -> None:
    (root / "stages").mkdir()
    for name in ("train.py", "dvc.lock", "stages/metrics.json"):
        (root / name).write_text("1")
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "first")
    commit = git(root, "rev-parse", "HEAD")
    for name in ("dvc.lock", "stages/metrics.json"):
        (root / name).write_text("2")
    assert git_tags(root) == {"mlflow.source.git.commit": commit, "headstart.dirty": "false"}
    (root / "train.py").write_text("2")
    assert git_tags(root)["headstart.dirty"] == "true"


def test_a_folder_outside_git_has_no_tags(root: Path) -> None:
    assert git_tags(root) == {}
