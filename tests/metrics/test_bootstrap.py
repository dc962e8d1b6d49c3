"""Resamples that do not depend on their blocks, and percentile intervals against scipy's."""

import numpy as np
import pytest
from scipy import stats

from headstart.metrics import bootstrap
from headstart.metrics.bootstrap import bootstrap_estimate, resample_weights


def test_resamples_do_not_depend_on_how_they_are_cut_into_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(resample_weights(30, 50, seed=1)))
    monkeypatch.setattr(bootstrap, "_BLOCK_SIZE", 100)
    blocks = list(resample_weights(30, 50, seed=1))
    assert len(blocks) == 17
    assert np.array_equal(np.concatenate(blocks), whole)
    assert (whole.sum(axis=1) == 30).all()


def test_the_percentile_interval_is_scipys() -> None:
    values = np.random.default_rng(6).random(300)
    samples = np.concatenate([weights @ values / 300 for weights in resample_weights(300, 4000, seed=0)])
    ours = bootstrap_estimate(values.mean(), samples)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1)
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.003)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.003)
