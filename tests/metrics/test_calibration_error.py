"""Calibration error beside that of a perfectly calibrated model; reliability bins; log loss and Brier score."""

import numpy as np
import pytest
from scipy import special

from headstart.metrics.calibration import ClassifierPredictions, calibrate_logits
from headstart.metrics.calibration_error import (
    brier_score_interval,
    calibration_error,
    log_loss_interval,
    reliability_bins,
)
from synthetic_logits import make_logits


def calibrated_model(pictures: int, seed: int, temperature: float = 1.0, repeats: int = 1) -> ClassifierPredictions:
    """Answers of a model whose probabilities are true at temperature 1; each picture `repeats` times."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=pictures)
    labels = (rng.random(pictures) < special.expit(logits)).astype(np.int64)
    positive = special.expit(logits / temperature)
    probabilities = np.repeat(np.stack([1 - positive, positive], axis=1), repeats, axis=0)
    units = np.repeat(np.arange(pictures), repeats)
    return ClassifierPredictions(np.repeat(labels, repeats), probabilities, probabilities, 1.0, units)


def share_inside(temperature: float = 1.0, repeats: int = 1) -> float:
    inside = 0
    for seed in range(200):
        predictions = calibrated_model(60, seed, temperature, repeats)
        error = calibration_error(predictions, predictions.raw, seed=1)
        inside += error.perfect_low <= error.value <= error.perfect_high
    return inside / 200


def test_a_perfectly_calibrated_model_is_inside_its_range_and_the_range_is_above_0() -> None:
    """The percentile bootstrap of the error never contains the truth, 0, there."""
    assert 0.91 <= share_inside() <= 0.99
    error = calibration_error(calibrated_model(60, 0), calibrated_model(60, 0).raw, seed=1)
    assert 0.02 < error.perfect_low < 0.1 < error.perfect_high < 0.25


def test_an_overconfident_model_is_outside() -> None:
    assert share_inside(temperature=0.25) < 0.2


def test_pictures_that_are_alike_widen_the_range() -> None:
    assert share_inside(repeats=10) > 0.9
    repeated = calibrated_model(60, 0, repeats=10)
    unaware = ClassifierPredictions(repeated.labels, repeated.raw, repeated.raw, 1.0)
    aware_of_units, alone = (calibration_error(one, one.raw, seed=1) for one in (repeated, unaware))
    assert aware_of_units.value == alone.value
    assert aware_of_units.perfect_high > 2 * alone.perfect_high


def test_the_range_is_the_same_every_time() -> None:
    predictions = calibrated_model(60, 0)
    assert calibration_error(predictions, predictions.raw, 3) == calibration_error(predictions, predictions.raw, 3)


def test_reliability_bins_add_up_to_the_calibration_error() -> None:
    predictions = calibrate_logits(make_logits(250, 3, seed=3))
    bins = reliability_bins(predictions, predictions.calibrated)
    assert bins.pictures.sum() == 250
    ece = (np.abs(bins.accuracy - bins.confidence) * bins.pictures).sum() / 250
    assert calibration_error(predictions, predictions.calibrated, 0).value == pytest.approx(ece)


def test_reliability_of_a_case_worked_by_hand() -> None:
    # Bins of 1/15: 0.61 and 0.62 share (0.6, 0.667], 1.0 is in the last.
    probabilities = np.array([[0.61, 0.39], [0.38, 0.62], [1.0, 0.0]])
    predictions = ClassifierPredictions(np.array([0, 0, 0]), probabilities, probabilities, 1.0)
    bins = reliability_bins(predictions, probabilities)
    assert bins.confidence.tolist() == pytest.approx([0.615, 1.0])
    assert bins.accuracy.tolist() == [0.5, 1.0]
    assert bins.pictures.tolist() == [2, 1]
    # Two answers at 0.615: none, one or both right, each more often than 2.5 %; an answer at 1 is always right.
    assert (bins.low.tolist(), bins.high.tolist()) == ([0.0, 1.0], [1.0, 1.0])


def test_consistency_bars_are_binomial() -> None:
    probabilities = np.tile([0.1, 0.9], (100, 1))
    predictions = ClassifierPredictions(np.repeat([1, 0], [80, 20]), probabilities, probabilities, 1.0)
    bins = reliability_bins(predictions, probabilities)
    assert bins.low[0] == pytest.approx(0.84, abs=0.011)  # 2.5 % quantile of binomial(100, 0.9) is 84
    assert bins.high[0] == pytest.approx(0.95, abs=0.011)


def test_intervals_of_log_loss_and_brier_score_know_of_mistakes_that_were_not_seen() -> None:
    """20 right answers at 0.97: the values do not vary, but 0.03 of others would be wrong."""
    probabilities, labels, units = np.tile([0.03, 0.97], (20, 1)), np.ones(20, dtype=int), np.arange(20)
    expected = -0.97 * np.log(0.97) - 0.03 * np.log(0.03)
    loss = log_loss_interval(probabilities, labels, units)
    assert loss.value == pytest.approx(-np.log(0.97))
    assert loss.low is not None
    assert loss.high is not None
    assert 0 <= loss.low < -np.log(0.97) < expected < loss.high
    score = brier_score_interval(probabilities, labels, units)
    assert score.value == pytest.approx(0.03**2)
    assert score.high is not None
    assert score.high > 0.03 * 0.97
