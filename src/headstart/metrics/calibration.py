"""Temperature scaling (Guo et al. 2017): a classifier's logits to probabilities, raw and calibrated. No torch."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from headstart.base.arrays import Floats, Ints

ECE_BINS = 15  # of confidence, as in Guo et al.
TEMPERATURE_BOUNDS = (0.05, 20.0)  # in which the temperature is searched


@dataclass(frozen=True)
class SplitLogits:
    """One model's logits (n, classes) of the val and test pictures, and their labels (n,) as class numbers."""

    val: Floats
    val_labels: Ints
    test: Floats
    test_labels: Ints

    def __post_init__(self) -> None:
        for logits, labels in ((self.val, self.val_labels), (self.test, self.test_labels)):
            assert logits.ndim == 2, f"logits are (pictures, classes), not {logits.shape}"
            assert labels.shape == logits.shape[:1], f"{labels.shape} labels for {logits.shape} logits"
            assert len(labels) > 0, "no pictures"
            assert logits.shape[1] == self.test.shape[1] >= 2, "val and test have the same two or more classes"
            assert np.isfinite(logits).all(), "a logit is not a finite number"
            assert (labels >= 0).all(), "a label is no class number"
            assert (labels < logits.shape[1]).all(), "a label is no class number"


@dataclass(frozen=True)
class ClassifierPredictions:
    """One model's probabilities for the test pictures.

    Attributes:
        labels: true class numbers, (n,).
        raw: probabilities before calibration, (n, classes).
        calibrated: probabilities after it, (n, classes).
        temperature: by which the logits were divided.
        units: number of each picture's unit, (n,), as `base.units.unit_numbers` gives it; by default each is alone.
    """

    labels: Ints
    raw: Floats
    calibrated: Floats
    temperature: float
    units: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def __post_init__(self) -> None:
        if len(self.units) == 0:
            object.__setattr__(self, "units", np.arange(len(self.labels)))
        assert self.units.shape == self.labels.shape, f"{self.units.shape} units of {self.labels.shape} labels"

    @cached_property
    def predicted(self) -> Ints:
        """The class of the highest probability, (n,)."""
        return np.asarray(self.raw.argmax(axis=1))

    @cached_property
    def correct(self) -> Floats:
        """1.0 where the prediction is the label, else 0.0, (n,)."""
        return np.asarray(self.predicted == self.labels, dtype=np.float64)

    @cached_property
    def losses(self) -> Floats:
        """Cross-entropy of each picture's calibrated probabilities, in nats, clipped as scikit-learn does, (n,)."""
        epsilon = np.finfo(np.float64).eps
        own = self.calibrated[np.arange(len(self.labels)), self.labels]
        return np.asarray(-np.log(np.clip(own, epsilon, 1 - epsilon)))

    @cached_property
    def confusion(self) -> Ints:
        """Confusion matrix: pictures by [true class, predicted class]."""
        from sklearn.metrics import confusion_matrix

        matrix: Ints = confusion_matrix(self.labels, self.predicted, labels=np.arange(self.raw.shape[1]))
        return matrix


def calibrate_logits(
    logits: SplitLogits, units: Ints | None = None, temperature: float | None = None
) -> ClassifierPredictions:
    """Probabilities of the test pictures, raw and calibrated.

    Args:
        logits: of the model.
        units: of the test pictures; None: each is alone.
        temperature: by which the logits are divided; None: the one that fits val best.
    """
    from scipy.special import softmax

    if temperature is None:
        temperature = fit_temperature(logits.val, logits.val_labels)
    test = np.asarray(logits.test, dtype=np.float64)
    return ClassifierPredictions(
        logits.test_labels,
        softmax(test, axis=1),
        softmax(test / temperature, axis=1),
        temperature,
        np.arange(len(test)) if units is None else units,
    )


def fit_temperature(logits: Floats, labels: Ints) -> float:
    """The temperature T for which softmax(logits / T) has the least negative log-likelihood.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017 (arXiv 1706.04599). The loss is convex in 1/T and so
    has one minimum in log T, which is searched within TEMPERATURE_BOUNDS. Above 1 the model was overconfident, below 1
    underconfident.

    Without a wrong prediction the loss falls all the way to T = 0. The targets are then smoothed as Platt (1999) does,
    with one more picture predicted right and one wrong: (n + 1) / (n + 2) for the label, the rest for the others. That
    lowers the temperature of a model whose confidence is below what n right answers show. It never raises it above 1,
    since n right answers are no sign of overconfidence.

    Args:
        logits: (n, classes).
        labels: class numbers, (n,).
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    logits = np.asarray(logits, dtype=np.float64)
    pictures, classes = logits.shape
    without_mistake = bool((logits.argmax(axis=1) == labels).all())
    wrong = 1 / (pictures + 2) if without_mistake else 0.0
    targets = np.full(logits.shape, wrong / (classes - 1))
    targets[np.arange(pictures), labels] = 1 - wrong

    def negative_log_likelihood(log_t: float) -> float:
        return -float((targets * log_softmax(logits / np.exp(log_t), axis=1)).sum(axis=1).mean())

    low, high = np.log(TEMPERATURE_BOUNDS)
    result = minimize_scalar(negative_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-7})
    temperature = float(np.exp(result.x))
    return min(temperature, 1.0) if without_mistake else temperature


def confidence_bin(confidence: Floats) -> Ints:
    """The number of the bin (low, high] that each confidence falls in."""
    return np.asarray(np.clip(np.ceil(confidence * ECE_BINS) - 1, 0, ECE_BINS - 1), dtype=np.int64)
