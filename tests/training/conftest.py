"""Fixtures of the training tests: a project up to train-head, and validation losses that fall with every epoch."""

import itertools
import shutil
from pathlib import Path

import pytest

from conftest import Project
from headstart.models import classifier


@pytest.fixture
def root(project: Project, tmp_path: Path) -> Path:
    """A copy of the classifier's project, up to train-head."""
    for name in ("fetch", "weights", "split", "augment", "train-head"):
        shutil.copytree(project.root / "stages" / name, tmp_path / "stages" / name)
    shutil.copytree(project.root / ".cache", tmp_path / ".cache")
    return tmp_path


@pytest.fixture
def last_epoch_is_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every validation has a lower loss than the one before: the best epoch is the last one."""
    losses = itertools.count(100, -1)
    monkeypatch.setattr(
        classifier, "compute_val_metrics", lambda *_: {"val_loss": float(next(losses)), "val_accuracy": 0.5}
    )
