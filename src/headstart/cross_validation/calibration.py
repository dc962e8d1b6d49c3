"""Probabilities out of fold: the temperature of a fold is fitted on the answers of the other folds."""

import numpy as np
from scipy.special import softmax

from headstart.base.arrays import Floats
from headstart.cross_validation.folds import Examined
from headstart.metrics.calibration import ClassifierPredictions, fit_temperature


def calibrate_out_of_fold(logits: Floats, examined: Examined) -> ClassifierPredictions:
    """Probabilities of all pictures, raw and calibrated.

    No picture has a part in the temperature that its own answer is divided by. The `temperature` of the predictions is
    the one that fits all answers; nothing is divided by it.

    Args:
        logits: out of fold, (n, labels).
        examined: the pictures.
    """
    calibrated = np.empty_like(logits)
    for fold in range(examined.folds):
        inside = examined.fold == fold
        temperature = fit_temperature(logits[~inside], examined.targets[~inside])
        calibrated[inside] = softmax(logits[inside] / temperature, axis=1)
    return ClassifierPredictions(
        examined.targets,
        softmax(logits, axis=1),
        calibrated,
        fit_temperature(logits, examined.targets),
        examined.units,
    )


def average(one: ClassifierPredictions, other: ClassifierPredictions) -> ClassifierPredictions:
    """The mean of two models' calibrated probabilities, which is left as it is."""
    mean = (one.calibrated + other.calibrated) / 2
    return ClassifierPredictions(one.labels, mean, mean, 1.0, one.units)
