"""The threshold of "none of these" is chosen on what the model in the folder gives for the validation pictures."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import tiny
from conftest import Project
from headstart.engine.pixels import load_pixels
from headstart.export import int8_threshold
from headstart.export.int8_threshold import refit_unknown_threshold
from headstart.export.predictor import Predictor


def test_the_threshold_is_that_of_the_models_own_strangeness(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With six pictures a threshold keeps 6 of 7; for 95 % they are too few, and it is null."""
    root = tmp_path / "copy"
    shutil.copytree(project.root, root)
    folder = root / "stages/export"
    before = tiny.read_json(folder / "labels.json")
    refit_unknown_threshold(folder, root)
    assert tiny.read_json(folder / "labels.json") == before | {"unknown": before["unknown"] | {"threshold": None}}
    monkeypatch.setattr(int8_threshold, "threshold_that_keeps", lambda scores, units: (float(np.sort(scores)[-2]), ""))
    refit_unknown_threshold(folder, root)
    model, val = Predictor(folder), tiny.manifest(root, "split", "val").images
    scores = model.classifier_output(load_pixels(val, root, model.input, "decode")).strangeness
    assert model.unknown_above == pytest.approx(float(np.sort(scores)[-2]), abs=1e-6)
