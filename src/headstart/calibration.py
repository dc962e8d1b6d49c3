"""From a classifier's logits to its answers: probabilities, as they are and calibrated. No disk, no torch."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS = 15  # of confidence, as in Guo et al. 2017
TEMPERATURES = (0.05, 20.0)  # where the temperature is looked for


@dataclass(frozen=True)
class Logits:
    """What one model says of the val and test pictures: logits (n, classes), labels (n,) as class numbers."""

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
class Answers:
    """One model's answers to the test pictures, as probabilities before and after calibration, (n, classes)."""

    labels: Ints
    raw: Floats
    calibrated: Floats
    temperature: float

    @cached_property
    def predicted(self) -> Ints:
        """The class of the highest probability, (n,)."""
        return np.asarray(self.raw.argmax(axis=1))

    @cached_property
    def correct(self) -> Floats:
        """1.0 where the answer is right, else 0.0, (n,)."""
        return np.asarray(self.predicted == self.labels, dtype=np.float64)

    @cached_property
    def confusion(self) -> Ints:
        """Pictures by [true class, predicted class]."""
        from sklearn.metrics import confusion_matrix

        matrix: Ints = confusion_matrix(self.labels, self.predicted, labels=np.arange(self.raw.shape[1]))
        return matrix


def answer(logits: Logits) -> Answers:
    """Logits to probabilities, calibrated with the temperature that fits val best."""
    from scipy.special import softmax

    temperature = fit_temperature(logits.val, logits.val_labels)
    test = np.asarray(logits.test, dtype=np.float64)
    return Answers(logits.test_labels, softmax(test, axis=1), softmax(test / temperature, axis=1), temperature)


def fit_temperature(logits: Floats, labels: Ints) -> float:
    """The temperature T for which softmax(logits / T) has the least negative log-likelihood.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017. The loss is convex in 1/T, so it has one
    valley in log T, sought within TEMPERATURES. Above 1 the model was too sure of itself, below 1 not sure enough.
    Without a mistake among the pictures the loss falls all the way to T = 0: they tell nothing, and T stays 1.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    logits = np.asarray(logits, dtype=np.float64)
    if (logits.argmax(axis=1) == labels).all():
        return 1.0

    def loss(log_t: float) -> float:
        return -float(log_softmax(logits / np.exp(log_t), axis=1)[np.arange(len(labels)), labels].mean())

    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-7})
    return float(np.exp(found.x))


def confidence_bin(confidence: Floats) -> Ints:
    """The number of the bin (low, high] that each confidence falls in."""
    return np.asarray(np.clip(np.ceil(confidence * BINS) - 1, 0, BINS - 1), dtype=np.int64)
