"""How far probabilities are from the truth: log loss, Brier score, calibration error beside a calibrated model's."""

from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Floats, Ints
from headstart.metrics.calibration import ECE_BINS, ClassifierPredictions, confidence_bin
from headstart.metrics.cluster import sum_by_unit
from headstart.metrics.estimate import Estimate
from headstart.metrics.intervals import real_mean_interval

DRAWS = 1000  # of a perfectly calibrated model's answers


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error, and between which two values that of a perfectly calibrated model mostly lies.

    It has no interval: it is never negative, so that few pictures show one where there is none (0.09 at 60 pictures is
    usual), and no interval that was tried covers.
    """

    value: float
    perfect_low: float
    perfect_high: float


@dataclass(frozen=True)
class ReliabilityBins:
    """The bins of confidence that hold a picture, (b,): mean confidence, accuracy, number of pictures.

    `low` and `high` (b,) are the consistency bar: where 95 % of a perfectly calibrated model's accuracies lie.
    """

    confidence: Floats
    accuracy: Floats
    pictures: Ints
    low: Floats
    high: Floats


def calibration_error(
    predictions: ClassifierPredictions, probabilities: Floats, seed: int, draws: int = DRAWS
) -> CalibrationError:
    """ECE of the predicted class over ECE_BINS equal bins (Guo et al. 2017), with consistency resampling.

    Args:
        predictions: of the model.
        probabilities: the raw or the calibrated ones, (n, classes).
        seed: of the resampling.
        draws: of a perfectly calibrated model's answers.
    """
    confidence = probabilities.max(axis=1)
    bins = np.eye(ECE_BINS)[confidence_bin(confidence)]

    def error(correct: Floats) -> Floats:
        return np.asarray(np.abs((correct - confidence) @ bins).sum(axis=1) / len(confidence))

    perfect = error(_perfectly_calibrated(predictions, confidence, seed, draws))
    low, high = np.quantile(perfect, [0.025, 0.975])
    return CalibrationError(float(error(predictions.correct[None])[0]), float(low), float(high))


def reliability_bins(predictions: ClassifierPredictions, probabilities: Floats, seed: int = 0) -> ReliabilityBins:
    """The points of the reliability diagram with consistency bars (Bröcker and Smith 2007), over the bins of ECE."""
    confidence = probabilities.max(axis=1)
    number = confidence_bin(confidence)
    pictures = np.bincount(number, minlength=ECE_BINS)
    filled = pictures > 0
    bins = np.eye(ECE_BINS)[number][:, filled] / pictures[filled]
    low, high = np.quantile(_perfectly_calibrated(predictions, confidence, seed, DRAWS) @ bins, [0.025, 0.975], axis=0)
    return ReliabilityBins(confidence @ bins, predictions.correct @ bins, pictures[filled], low, high)


def _perfectly_calibrated(predictions: ClassifierPredictions, confidence: Floats, seed: int, times: int) -> Floats:
    """Right and wrong answers (times, n) of a model whose confidence is its probability of being right.

    Pictures of a unit are right or wrong together as often as those of the model at hand: they share their draw with
    the probability whose square is the correlation of its answers within a unit.
    """
    rng = np.random.default_rng(seed)
    count = int(predictions.units.max()) + 1
    shape = (times, len(confidence))
    draws = rng.random(shape)
    correlation = _correlation_within_units(predictions)
    if correlation > 0:
        shared = rng.random((times, count))[:, predictions.units]
        draws = np.where(rng.random(shape) < np.sqrt(correlation), shared, draws)
    return (draws < confidence).astype(np.float64)


def _correlation_within_units(predictions: ClassifierPredictions) -> float:
    """Mean correlation of two answers, right or wrong, of one unit, in 0..1; 0 where no unit has two pictures."""
    residuals = predictions.correct - predictions.correct.mean()
    variance = float((residuals**2).mean())
    sums, squares, sizes = sum_by_unit(
        np.stack([residuals, residuals**2, np.ones(len(residuals))], axis=1), predictions.units
    ).T
    pairs = float((sizes * (sizes - 1)).sum())
    if pairs == 0:
        return 0.0
    if variance == 0:  # no mistake, which cannot show that they come one by one
        return 1.0
    return float(np.clip(((sums**2 - squares).sum() / pairs) / variance, 0, 1))


def log_loss_interval(probabilities: Floats, labels: Ints, units: Ints) -> Estimate:
    """Cross-entropy of the probabilities, clipped as scikit-learn does; 0 is perfect."""
    clipped = np.clip(probabilities, np.finfo(np.float64).eps, 1 - np.finfo(np.float64).eps)
    return _expected_mean(-np.log(clipped), probabilities, labels, units)


def brier_score_interval(probabilities: Floats, labels: Ints, units: Ints) -> Estimate:
    """Squared differences between probabilities and 0 or 1, summed over the labels, halved for two; 0 is perfect."""
    total = (probabilities**2).sum(axis=1, keepdims=True)
    score = total - 2 * probabilities + 1  # of each picture if its label were c, (n, classes)
    return _expected_mean(score / 2 if probabilities.shape[1] == 2 else score, probabilities, labels, units)


def _expected_mean(scores: Floats, probabilities: Floats, labels: Ints, units: Ints) -> Estimate:
    """Mean score of the true labels; `scores` (n, classes) are those of each label if it were the true one."""
    expected = (probabilities * scores).sum(axis=1)
    spread = (probabilities * scores**2).sum(axis=1) - expected**2
    variance = float(spread.mean() + expected.var())
    return real_mean_interval(scores[np.arange(len(labels)), labels], units, variance)
