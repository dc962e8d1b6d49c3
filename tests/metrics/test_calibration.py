"""Temperature scaling against a known temperature, brute force and its bounds."""

import numpy as np
import pytest

from headstart.metrics.calibration import calibrate_logits, fit_temperature
from synthetic_logits import make_logits


def test_the_temperature_of_scaled_logits_is_found_again() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3))
    # Labels sampled from softmax(logits) make the temperature of `logits` 1 and that of 2.5 * logits 2.5.
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    assert fit_temperature(2.5 * logits, labels) == pytest.approx(2.5, rel=0.05)


def test_temperature_is_the_least_loss_by_brute_force() -> None:
    logits = make_logits(200, 4, seed=3)
    grid = np.geomspace(0.05, 20, 2000)
    shifted = logits.val[None] / grid[:, None, None]
    loss = np.log(np.exp(shifted).sum(axis=2)) - shifted[:, np.arange(200), logits.val_labels]
    assert fit_temperature(logits.val, logits.val_labels) == pytest.approx(grid[loss.mean(axis=1).argmin()], rel=5e-3)


def test_without_a_wrong_prediction_an_unsure_model_is_made_surer() -> None:
    """40 of 40 right at 80 %: Platt's target is 41 / 42, which softmax reaches at log(4) / T = log(41)."""
    logits = np.where(np.eye(2)[np.arange(40) % 2] == 1, np.log(4), 0)
    assert fit_temperature(logits, np.arange(40) % 2) == pytest.approx(np.log(4) / np.log(41), rel=1e-4)


def test_without_a_wrong_prediction_a_sure_model_is_left_as_it_is() -> None:
    """3 of 3 right at 98.7 %: no reason for Platt's 4 / 5."""
    assert fit_temperature(np.eye(3) * 5, np.arange(3)) == 1


def test_one_wrong_prediction_is_no_other_case_than_many() -> None:
    """The plain likelihood: smoothing would add to what the wrong prediction says."""
    logits = np.where(np.eye(2)[np.arange(40) % 2] == 1, np.log(4), 0)
    labels = np.arange(40) % 2
    labels[0] = 1
    assert fit_temperature(logits, labels) == pytest.approx(np.log(4) / np.log(39), rel=1e-4)


def test_a_model_that_is_always_wrong_keeps_the_temperature_in_bounds() -> None:
    assert fit_temperature(np.eye(3) * 5, np.array([1, 2, 0])) == pytest.approx(20, rel=1e-3)


def test_calibration_changes_no_prediction() -> None:
    found = calibrate_logits(make_logits(200, 6, seed=4))
    assert np.array_equal(found.calibrated.argmax(axis=1), found.predicted)
