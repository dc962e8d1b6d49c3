"""A quantized classifier has a threshold of its own, and figures of the pictures that it keeps and turns away."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import tiny
from conftest import Project
from headstart.base.arrays import Floats
from headstart.engine.pixels import load_pixels
from headstart.export import int8_unknown
from headstart.export.int8_unknown import refit_unknown, unknown_figures
from headstart.export.predictor import Predictor
from headstart.images.foreign_pictures import foreign_pictures
from headstart.metrics.intervals import difference_interval, mean_interval


def test_the_threshold_and_the_figures_are_of_the_file_in_the_folder(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With six pictures a threshold keeps 6 of 7; for 95 % they are too few, and it is null."""
    root = tmp_path / "copy"
    shutil.copytree(project.root, root)
    folder, test = root / "stages/export", tiny.manifest(root, "split", "test")
    model = Predictor(folder)

    def scores_of(images: np.ndarray) -> Floats:
        return model.classifier_output(images).strangeness.astype(float)

    own = scores_of(load_pixels(test.images, root, model.input, "decode"))
    other = (own + 1).astype(np.float32)
    before = tiny.read_json(folder / "labels.json")
    found = refit_unknown(folder, root, test, other, own.astype(np.float32), 3)
    assert tiny.read_json(folder / "labels.json") == before | {"unknown": before["unknown"] | {"threshold": None}}
    assert (found["kept"], found["fpr95"], found["threshold_from"]) == (1, 1, 6)
    assert found["note"].startswith("no picture is turned away: ")
    assert "threshold" not in found
    monkeypatch.setattr(int8_unknown, "threshold_that_keeps", lambda scores, units: (float(np.sort(scores)[-2]), ""))
    found = refit_unknown(folder, root, test, other, own.astype(np.float32), 3)
    val = scores_of(load_pixels(tiny.manifest(root, "split", "val").images, root, model.input, "decode"))
    threshold = Predictor(folder).unknown_above
    assert threshold is not None
    assert threshold == pytest.approx(float(np.sort(val)[-2]), abs=1e-6)
    assert threshold == found["threshold"]
    assert found["kept"] == pytest.approx(float((own <= threshold + 1e-6).mean()), abs=1e-6)
    assert found["kept_fp32"] == 1, "nothing was turned away before"
    generated = scores_of(np.concatenate(list(foreign_pictures(model.input.shape[0], 32, 3).values())))
    assert found["pictures"] == len(generated) == 192
    assert found["fpr95"] == pytest.approx(float((generated <= threshold + 1e-6).mean()), abs=1e-6)
    assert "note" not in found


@pytest.mark.parametrize("unit", [1, 5])
def test_features_that_int8_has_moved_need_a_threshold_of_their_own(unit: int) -> None:
    """All scores are a tenth larger: at the fp32 threshold 36 pictures fewer would be kept."""
    was, units = np.linspace(0.5, 1, 200), np.arange(200) // unit
    generated = np.concatenate([np.full(30, 2.0), np.full(2, 0.6)])
    found = unknown_figures(units, (was, float(was[189])), (1.1 * was, float(1.1 * was[185])), generated)
    assert (found["kept"], found["kept_fp32"]) == (0.93, 0.95)
    at_fp32 = float((1.1 * was <= was[189]).mean())
    assert found["kept_at_fp32_threshold"] == pytest.approx(at_fp32)
    assert at_fp32 == (190 - 36) / 200
    own = mean_interval((np.arange(200) < 186).astype(np.float64), units)
    lost = ((np.arange(200) >= 186) & (np.arange(200) < 190)).astype(np.float64)
    change = difference_interval(-lost, units)
    assert (found["kept_low"], found["kept_high"]) == pytest.approx((own.low, own.high), abs=1e-6)
    assert [found["difference"][f"kept{end}"] for end in ("", "_low", "_high")] == pytest.approx(
        [change.value, change.low, change.high], abs=1e-6
    )
    assert found["fpr95"] == 2 / 32
    assert found["fpr95_low"] < found["fpr95"] < found["fpr95_high"]
    assert found["auroc_low"] < found["auroc"] < found["auroc_high"] < 1
    assert (found["threshold"], found["threshold_fp32"]) == pytest.approx((1.1 * was[185], was[189]))
    nothing = unknown_figures(units, (was, np.inf), (was, np.inf), generated)
    assert (nothing["kept"], nothing["fpr95"]) == (1, 1)
    assert "threshold" not in nothing
