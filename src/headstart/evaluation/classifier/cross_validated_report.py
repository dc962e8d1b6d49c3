"""Cross-validation in the report: its first section, and what it adds to the sentences on the test set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from headstart.cross_validation.figures import CrossValidation, compare
from headstart.evaluation.classifier.cross_validated_sentences import NAMES, cross_validated_sentences
from headstart.evaluation.classifier.metric_tables import METRIC_SPECS, classifier_class_table
from headstart.evaluation.report_facts import ReportFacts
from headstart.evaluation.report_tables import (
    INTERVAL,
    Table,
    counted,
    format_decimal,
    format_estimate,
    format_percent,
    format_points,
    format_with_interval,
)
from headstart.metrics.classification import ClassifierEvaluation, ClassifierMetrics
from headstart.metrics.estimate import Estimate


class Gain(NamedTuple):
    """What fine-tuning changed in cross-validation: accuracy minus that of the head alone, of so many pictures."""

    accuracy: Estimate
    pictures: int


@dataclass(frozen=True)
class CrossValidatedSection:
    """The report's first section.

    Attributes:
        accuracy: with its interval.
        notes: warnings, which hold for all figures of the page.
        sentences: what was examined how, and what the interval covers.
        metrics: the other metrics with their intervals.
        classes: metrics by label.
        alternatives: other models on the same folds; without rows where there are none.
        gain: of fine-tuning; None where it was not repeated, or every fold kept the head.
    """

    accuracy: Estimate
    notes: Sequence[str]
    sentences: Sequence[str]
    metrics: Table
    classes: Table
    alternatives: Table
    gain: Gain | None


def cross_validated_section(
    found: CrossValidation, evaluation: ClassifierEvaluation, facts: ReportFacts
) -> CrossValidatedSection:
    """The section of the report.

    Args:
        found: by cross-validation.
        evaluation: of the test set.
        facts: of earlier stages; their notes stand here, where the page's first figures are.
    """
    accuracy = found.metrics.accuracy
    return CrossValidatedSection(
        accuracy=accuracy,
        notes=[*facts.notes, *([f"This interval may not hold: {accuracy.note}."] if accuracy.note else [])],
        sentences=cross_validated_sentences(found, evaluation, facts),
        metrics=_metrics_table(found.metrics),
        classes=classifier_class_table(found.metrics, "Cross-validated metrics by label"),
        alternatives=_alternatives_table(found),
        gain=_gain(found),
    )


def gain_sentence(gain: Gain, in_test: Estimate) -> str:
    """What cross-validation adds to the difference between both models on the test set, `in_test`."""
    assert gain.accuracy.low is not None
    assert gain.accuracy.high is not None
    assert in_test.low is not None
    assert in_test.high is not None
    changed, on = format_points(gain.accuracy), f"on {counted(gain.pictures, 'picture')}"
    unclear = gain.accuracy.low <= 0 <= gain.accuracy.high
    if in_test.low <= 0 <= in_test.high:
        can = "cannot either" if unclear else "can"
        return f"Cross-validation, {on}, {can}: fine-tuning changed accuracy by {changed}."
    return f"In cross-validation, {on}, it changed accuracy by {changed}{', which may be chance' if unclear else ''}."


def _gain(found: CrossValidation) -> Gain | None:
    if "head" not in found.alternatives:
        return None
    of_head = found.alternatives["head"].difference  # its accuracy minus that of the fine-tuned model
    if of_head.value is None or of_head.low is None or of_head.high is None:
        return None
    return Gain(Estimate(-of_head.value, -of_head.high, -of_head.low), len(found.examined.images))


def _metrics_table(metrics: ClassifierMetrics) -> Table:
    """All but the accuracy, which leads the section."""
    estimates = metrics.estimates()
    rows = tuple(
        (spec.name, *format_estimate(estimates[spec.key], spec.format))
        for spec in METRIC_SPECS
        if spec.key != "accuracy"
    )
    return Table("Other cross-validated metrics", ("metric", "value", INTERVAL), rows)


def _alternatives_table(found: CrossValidation) -> Table:
    measured = found.predictions[found.model]
    models = {f"{NAMES[found.model]}, as above": compare(measured, measured)}
    models |= {NAMES[name]: other for name, other in found.alternatives.items()}
    rows = tuple(
        (
            name,
            format_with_interval(other.accuracy, format_percent),
            format_with_interval(other.log_loss, format_decimal),
            _judged(other.difference),
        )
        for name, other in models.items()
    )
    return Table(
        f"Other models on the same folds, {found.learned:,.0f} pictures to learn from each, with {INTERVAL}s",
        ("model", "accuracy", "log loss", "accuracy against the first, points"),
        rows if found.alternatives else (),
    )


def _judged(difference: Estimate) -> str:
    """A difference of two accuracies in points with its interval, and whether it is more than chance."""
    if difference.value is None or difference.low is None or difference.high is None:
        return difference.note or difference.absent
    judgement = "may be chance"
    if difference.low > 0 or difference.high < 0:
        judgement = f"{'better' if difference.low > 0 else 'worse'} beyond chance"
    return f"{format_points(difference, '')}: {judgement}"
