"""Temperatures out of fold: no picture has a part in the temperature of its own answer."""

import numpy as np
from scipy.special import softmax

from examined_pictures import gaussian
from headstart.cross_validation.calibration import average, calibrate_out_of_fold
from headstart.metrics.calibration import fit_temperature


def test_a_folds_temperature_is_of_the_other_folds() -> None:
    examined, features = gaussian(100, 0)
    logits = np.stack([-features[:, 0], features[:, 0] - 2], axis=1) * 3
    predictions = calibrate_out_of_fold(logits, examined)
    inside = examined.fold == 1
    temperature = fit_temperature(logits[~inside], examined.targets[~inside])
    np.testing.assert_allclose(predictions.calibrated[inside], softmax(logits[inside] / temperature, axis=1))
    changed = logits.copy()
    changed[inside] *= -5  # wrong and overconfident
    again = calibrate_out_of_fold(changed, examined)
    np.testing.assert_allclose(again.calibrated[inside], softmax(changed[inside] / temperature, axis=1))
    assert np.array_equal(predictions.units, examined.units)


def test_the_mean_of_two_models() -> None:
    examined, features = gaussian(50, 0)
    one, other = (calibrate_out_of_fold(np.stack([0 * f, f - 1], axis=1), examined) for f in features.T[:2])
    mean = average(one, other)
    np.testing.assert_allclose(mean.calibrated, (one.calibrated + other.calibrated) / 2)
    np.testing.assert_allclose(mean.calibrated.sum(axis=1), 1)
