"""Cross-validation in metrics.json and in the stage's line; its section of the report."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from headstart.cross_validation.figures import Alternative, CrossValidation
from headstart.cross_validation.out_of_fold import out_of_fold_json
from headstart.evaluation.classifier.cross_validated_report import CrossValidatedSection, cross_validated_section
from headstart.evaluation.classifier.cross_validated_sentences import NAMES, width_ratio
from headstart.evaluation.report_facts import ReportFacts
from headstart.evaluation.writer import NO_OUT_OF_FOLD
from headstart.metrics.classification import ClassifierEvaluation
from headstart.metrics.estimate import METRIC_DIGITS, estimate_json, estimates_json


@dataclass(frozen=True)
class CrossValidatedResults:
    """What cross-validation adds to what the stage writes; nothing where there was none.

    Attributes:
        metrics: `cv` of metrics.json.
        section: of the report.
        line: before the figure of the test set in the stage's line.
        rows: the text of out-of-fold.json.
    """

    metrics: Mapping[str, object] = field(default_factory=dict)
    section: CrossValidatedSection | None = None
    line: str = ""
    rows: str = NO_OUT_OF_FOLD


def cross_validated_results(
    found: CrossValidation | None, evaluation: ClassifierEvaluation, facts: ReportFacts
) -> CrossValidatedResults:
    """All of it; `found` is None without cross-validation, `evaluation` is of the test set."""
    if found is None:
        return CrossValidatedResults()
    return CrossValidatedResults(
        metrics={"cv": cross_validation_json(found, evaluation)},
        section=cross_validated_section(found, evaluation, facts),
        line=cross_validated_line(found),
        rows=out_of_fold_json(found.examined, {name: of.calibrated for name, of in found.predictions.items()}),
    )


def cross_validation_json(found: CrossValidation, evaluation: ClassifierEvaluation) -> dict[str, object]:
    """`cv` in metrics.json: all metrics of the model with their intervals, and the other models on the same folds.

    Args:
        found: by cross-validation.
        evaluation: of the test set: `width_ratio` is the width of the interval of the accuracy here, divided by the
            width of the same model's there.
    """
    ratio = width_ratio(found, evaluation)
    return {
        **estimates_json(found.metrics.estimates()),
        "model": found.model,
        "folds": found.examined.folds,
        "pictures": len(found.examined.images),
        "units": found.units,
        "learned": round(found.learned, 1),
        **({} if ratio is None else {"width_ratio": round(ratio, METRIC_DIGITS)}),
        "alternatives": {name: _alternative_json(other) for name, other in found.alternatives.items()},
    }


def _alternative_json(other: Alternative) -> dict[str, float | str]:
    return {
        **estimate_json("accuracy", other.accuracy),
        **estimate_json("log_loss", other.log_loss),
        **estimate_json("difference", other.difference),
    }


def cross_validated_line(found: CrossValidation) -> str:
    """The figure in the stage's line, before that of the test set."""
    accuracy = found.metrics.accuracy
    return (
        f"cross-validated accuracy {accuracy.value:.4f} (95 % interval {accuracy.low:.4f} to {accuracy.high:.4f}) of "
        f"{NAMES[found.model]}, {len(found.examined.images):,} pictures examined once each in {found.examined.folds} "
        "folds; "
    )
