"""When the exported classifier says "none of these", or two labels: the rules, fitted on pictures not trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Bools, Floats
from headstart.evaluation.classifier.calibration import CalibrationAnswers
from headstart.evaluation.classifier.model_features import ModelFeatures
from headstart.metrics.calibration import ClassifierPredictions, SplitLogits
from headstart.metrics.conformal import fit_prediction_sets
from headstart.metrics.estimate import Estimate
from headstart.metrics.intervals import mean_interval, real_mean_interval
from headstart.metrics.rejection import Rejection, Sample, leave_labels_out, rejection, threshold_that_keeps
from headstart.metrics.strangeness import cross_fitted_strangeness, fit_feature_bank
from headstart.models.answer_rules import AnswerRules

NO_PICTURES = "no test pictures"


@dataclass(frozen=True)
class UnknownFigures:
    """Of the strangeness score.

    Attributes:
        bank: training pictures that it compares with.
        threshold_from: pictures that the threshold was chosen on.
        kept: share of test pictures that are not turned away.
        generated: of generated pictures, by kind.
        all_generated: of all kinds together.
        left_out: of each label's pictures as if the label were none.
        note: what limits the threshold; empty where nothing does.
    """

    bank: int
    threshold_from: int
    kept: Estimate
    generated: Mapping[str, Rejection]
    all_generated: Rejection
    left_out: Mapping[str, Rejection]
    note: str


@dataclass(frozen=True)
class SetFigures:
    """Of the prediction sets, on the test pictures.

    Attributes:
        confidence: what was promised.
        coverage: share of the sets that hold the right label.
        by_label: the same for each label's pictures.
        size: mean number of labels in a set.
        shares: of the sets by their number of labels, from 1.
        calibrated_on: how many pictures, and which, in words.
        note: what limits the promise; empty where nothing does.
        for_each_label: the share is promised for every label, else for all together.
        out_of_fold: these pictures were answered by the models of the folds, not by the exported one.
    """

    confidence: float
    coverage: Estimate
    by_label: Mapping[str, Estimate]
    size: Estimate
    shares: Mapping[int, float]
    calibrated_on: str
    note: str
    for_each_label: bool
    out_of_fold: bool


@dataclass(frozen=True)
class Answers:
    """The rules, and how they do on the test set."""

    rules: AnswerRules
    unknown: UnknownFigures
    sets: SetFigures


def fit_answers(
    features: ModelFeatures,
    logits: SplitLogits,
    predictions: ClassifierPredictions,
    labels: Sequence[str],
    calibration: CalibrationAnswers,
    confidence: float,
    frozen_seed: int | None = None,
) -> Answers:
    """Fit both rules and measure them.

    Args:
        features: of the model.
        logits: of it.
        predictions: of it, for the test pictures.
        labels: names, in the order of the classes.
        calibration: what the prediction sets are fitted on.
        confidence: `evaluate.confidence`.
        frozen_seed: where the backbone has learned from none of the pictures, training pictures take part in choosing
            the threshold, out of fold; this is the seed of their folds. None: it was fine-tuned on them.
    """
    widths = features.plan.widths
    bank = fit_feature_bank(features.bank, widths)
    scores, units = bank.strangeness(features.val), features.val_units
    if frozen_seed is not None and len(np.unique(features.bank_units)) > 1:
        out_of_fold = cross_fitted_strangeness(features.bank, widths, features.bank_units, frozen_seed)
        scores = np.concatenate([scores, out_of_fold])
        units = np.concatenate([units, features.bank_units + units.max(initial=-1) + 1])
    threshold, note = threshold_that_keeps(scores, units)
    sets = fit_prediction_sets(calibration.probabilities, calibration.labels, calibration.units, confidence)
    test = bank.strangeness(features.test)
    generated = {kind: bank.strangeness(rows) for kind, rows in features.generated.items()}
    together = np.concatenate(list(generated.values()))
    left_out = leave_labels_out(
        Sample(features.bank, features.bank_labels, np.arange(len(features.bank_labels))),
        Sample(features.val, logits.val_labels, features.val_units),
        Sample(features.test, predictions.labels, predictions.units),
        widths,
    )

    def reject(foreign: Floats) -> Rejection:
        alone = np.arange(len(foreign)) + predictions.units.max() + 1  # each generated picture is a unit of its own
        return rejection(test, predictions.units, foreign, alone, threshold)

    unknown = UnknownFigures(
        bank=len(bank.rows),
        threshold_from=len(scores),
        kept=mean_interval(np.asarray(test <= threshold, dtype=np.float64), predictions.units),
        generated={kind: reject(strange) for kind, strange in generated.items()},
        all_generated=reject(together),
        left_out={labels[number]: figures for number, figures in left_out.items()},
        note=note,
    )
    measured = measure_sets(sets.contain(predictions.calibrated), predictions, labels)
    return Answers(
        AnswerRules(bank, features.plan, threshold, sets),
        unknown,
        SetFigures(
            confidence,
            *measured,
            f"{len(calibration.labels):,} pictures {calibration.what}",
            sets.note,
            sets.for_each_label,
            calibration.is_out_of_fold,
        ),
    )


def measure_sets(
    contained: Bools, predictions: ClassifierPredictions, labels: Sequence[str]
) -> tuple[Estimate, Mapping[str, Estimate], Estimate, Mapping[int, float]]:
    """Coverage, coverage by label, mean size, and shares by size, of sets (n, labels) for the test pictures."""
    hit = np.asarray(contained[np.arange(len(contained)), predictions.labels], dtype=np.float64)
    size = contained.sum(1)
    by_label: dict[str, Estimate] = {}
    for number, label in enumerate(labels):
        own = predictions.labels == number
        by_label[label] = (
            mean_interval(hit[own], predictions.units[own]) if own.any() else Estimate(None, absent=NO_PICTURES)
        )
    shares = {int(count): float((size == count).mean()) for count in np.unique(size)}
    return (
        mean_interval(hit, predictions.units),
        by_label,
        real_mean_interval(size.astype(np.float64), predictions.units),
        shares,
    )
