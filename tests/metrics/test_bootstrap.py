"""Resamples that do not depend on their blocks, and percentile intervals against scipy's."""

import numpy as np
import pytest
from scipy import stats

from headstart.metrics import bootstrap
from headstart.metrics.bootstrap import resample_weights
from headstart.metrics.calibration import calibrate_logits
from headstart.metrics.classification import compute_metrics
from synthetic_logits import NAMES, make_logits


def test_resamples_do_not_depend_on_how_they_are_cut_into_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(resample_weights(30, 50, seed=1)))
    monkeypatch.setattr(bootstrap, "_BLOCK_SIZE", 100)
    blocks = list(resample_weights(30, 50, seed=1))
    assert len(blocks) == 17
    assert np.array_equal(np.concatenate(blocks), whole)
    assert (whole.sum(axis=1) == 30).all()


def test_interval_of_accuracy_is_scipys() -> None:
    found = calibrate_logits(make_logits(300, 3, seed=6))
    ours = compute_metrics(found, NAMES[3], 4000, 0).accuracy
    theirs = stats.bootstrap((found.correct,), np.mean, n_resamples=4000, method="percentile", rng=1)
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.007)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.007)
