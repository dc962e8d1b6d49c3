"""What a classifier's confidence is calibrated on: answers out of fold, where there are any, else those on val."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from headstart.base.arrays import Floats, Ints
from headstart.cross_validation.figures import CrossValidation
from headstart.evaluation.report_tables import counted
from headstart.metrics.calibration import SplitLogits, fit_temperature
from headstart.metrics.intervals import FEW_UNITS

ABOUT_RIGHT = 0.05  # from 1: such a temperature hardly changes a probability
VALIDATION = "of the validation set"
OUT_OF_FOLD = "of cross-validation, each answered by a model that did not see it (test pictures apart)"


@dataclass(frozen=True)
class CalibrationAnswers:
    """Logits of pictures that the model did not learn from; temperature and prediction sets are fitted on them.

    Attributes:
        logits: (n, labels), or the logarithms of probabilities, which differ from them by a constant a row.
        labels: class numbers, (n,).
        units: number of each picture's unit, (n,).
        what: which pictures these are, in words.
    """

    logits: Floats
    labels: Ints
    units: Ints
    what: str

    @cached_property
    def temperature(self) -> float:
        """By which the logits are divided: the one that fits the answers best."""
        return fit_temperature(self.logits, self.labels)

    @cached_property
    def probabilities(self) -> Floats:
        """After calibration, (n, labels)."""
        from scipy.special import softmax

        calibrated: Floats = softmax(np.asarray(self.logits, dtype=np.float64) / self.temperature, axis=1)
        return calibrated

    @property
    def is_out_of_fold(self) -> bool:
        """Whether the models of the folds gave them, rather than the exported one."""
        return self.what == OUT_OF_FOLD

    @property
    def sentence(self) -> str:
        """What the temperature was fitted on and how the model's confidence was there, for the report."""
        pictures, units = len(self.labels), len(np.unique(self.units))
        groups = f" in {counted(units, 'independent group')}" if units < pictures else ""
        fitted = f"{counted(pictures, 'picture')}{groups} {self.what}"
        if self.temperature == 1:
            return (
                f"The temperature stays 1: there is no mistake on {fitted}, and the confidence there is as high as so "
                "many right answers allow."
            )
        models = "these models were" if self.is_out_of_fold else "the model was"
        was = "overconfident" if self.temperature > 1 else "underconfident"
        if abs(self.temperature - 1) < ABOUT_RIGHT:
            was = f"about as confident as {'they' if self.is_out_of_fold else 'it'} should be"
        few = " So few groups fit it badly: on pictures of other groups the confidence can be off by more than it was."
        if self.what == VALIDATION:
            few += " evaluate.folds with folds_fine_tune would fit it on all groups."
        return (
            "Calibration by temperature scaling divides the logits by one number, "
            f"{self.temperature:.2f}, fitted on {fitted}; uncalibrated, {models} {was} there. It changes no "
            f"predicted label, only the confidence.{few if units < FEW_UNITS else ''}"
        )


def choose_calibration(
    logits: SplitLogits,
    val_units: Ints,
    cross_validation: CrossValidation | None,
    test_pictures: Sequence[str],
    *,
    model: str,
) -> CalibrationAnswers:
    """Out-of-fold answers of this kind of model, where there are any, else those on val.

    Args:
        logits: of the model.
        val_units: of the validation pictures.
        cross_validation: None where there was none.
        test_pictures: their sha256; they take no part, so that calibration can be measured on them.
        model: `head` where the backbone is as pretrained, else `fine_tuned`.
    """
    if cross_validation is None or model not in cross_validation.predictions:
        return CalibrationAnswers(logits.val, logits.val_labels, val_units, VALIDATION)
    examined, raw = cross_validation.examined, cross_validation.predictions[model].raw
    test = set(test_pictures)
    chosen = np.array([image.sha256 not in test for image in examined.images])
    answers = np.log(np.maximum(raw[chosen], np.finfo(np.float64).tiny))
    return CalibrationAnswers(answers, examined.targets[chosen], examined.units[chosen], OUT_OF_FOLD)
