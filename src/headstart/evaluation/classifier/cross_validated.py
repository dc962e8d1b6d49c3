"""Cross-validation in metrics.json, in the report and in the stage's line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headstart.cross_validation.figures import Alternative, CrossValidation, compare
from headstart.cross_validation.out_of_fold import out_of_fold_json
from headstart.evaluation.report_facts import ReportFacts
from headstart.evaluation.report_tables import (
    Table,
    counted,
    format_decimal,
    format_estimate,
    format_percent,
)
from headstart.evaluation.writer import NO_OUT_OF_FOLD
from headstart.metrics.classification import ClassifierEvaluation
from headstart.metrics.estimate import METRIC_DIGITS, Estimate, estimate_json, estimates_json

NAMES = {
    "head": "the head alone",
    "fine_tuned": "the fine-tuned model",
    "mean": "mean of both models’ probabilities",
    "linear_last": "linear head, last features",
    "linear_blocks": "linear head, features of several blocks",
    "kernel_last": "kernel head, last features",
    "kernel_blocks": "kernel head, features of several blocks",
}


@dataclass(frozen=True)
class CrossValidatedSection:
    """The report's first section.

    Attributes:
        accuracy: with its interval.
        sentences: what was examined how, and what the interval covers.
        notes: warnings.
        alternatives: other models on the same folds; without rows where there are none.
    """

    accuracy: Estimate
    sentences: Sequence[str]
    notes: Sequence[str]
    alternatives: Table


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
    trained = sum(facts.counts["train"].values())
    return CrossValidatedResults(
        metrics={"cv": cross_validation_json(found, evaluation)},
        section=cross_validated_section(found, evaluation, trained, kept_head=bool(facts.kept_head)),
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


def width_ratio(found: CrossValidation, evaluation: ClassifierEvaluation) -> float | None:
    """Width of the interval of the accuracy, divided by that of the same model on the test set; None without one."""
    single = _single_split(found, evaluation)
    own = _width(found.metrics.accuracy)
    return own / width if own is not None and (width := _width(single)) else None


def _single_split(found: CrossValidation, evaluation: ClassifierEvaluation) -> Estimate:
    return (evaluation.head_only if found.model == "head" else evaluation.fine_tuned).accuracy


def _width(estimate: Estimate) -> float | None:
    return None if estimate.low is None or estimate.high is None else estimate.high - estimate.low


def cross_validated_line(found: CrossValidation) -> str:
    """The figure in the stage's line, before that of the test set."""
    accuracy = found.metrics.accuracy
    return (
        f"cross-validated accuracy {accuracy.value:.4f} (95 % interval {accuracy.low:.4f} to {accuracy.high:.4f}) of "
        f"{NAMES[found.model]}, {len(found.examined.images):,} pictures examined once each in {found.examined.folds} "
        "folds; "
    )


def cross_validated_section(
    found: CrossValidation, evaluation: ClassifierEvaluation, trained: int, *, kept_head: bool
) -> CrossValidatedSection:
    """The section of the report.

    Args:
        found: by cross-validation.
        evaluation: of the test set.
        trained: pictures that the exported model learned from.
        kept_head: the exported model is the head-only one, since fine-tuning made nothing better.
    """
    accuracy = found.metrics.accuracy
    return CrossValidatedSection(
        accuracy=accuracy,
        sentences=[
            _what_was_examined(found),
            _what_the_interval_covers(found),
            _against_single_split(found, evaluation),
            _exported_model(found, trained, kept_head=kept_head),
            *_pinned(found),
            *([found.skipped] if found.skipped else []),
        ],
        notes=[f"This interval may not hold: {accuracy.note}."] if accuracy.note else [],
        alternatives=_alternatives_table(found),
    )


def _what_was_examined(found: CrossValidation) -> str:
    count = len(found.examined.images)
    assert found.metrics.accuracy.value is not None
    unit = (
        "a near-duplicate of it"
        if found.units == count
        else f"any picture of its unit ({found.units:,} units: a group and its near-duplicates, or a picture alone)"
    )
    return (
        f"{_capital(NAMES[found.model])} predicts {format_percent(found.metrics.accuracy.value)} of "
        f"{counted(count, 'picture')} correctly. Each was examined once, by one of {found.examined.folds} models, that "
        f"had learned from the other folds and seen neither it nor {unit}."
    )


def _what_the_interval_covers(found: CrossValidation) -> str:
    accuracy = found.metrics.accuracy
    assert accuracy.low is not None
    assert accuracy.high is not None
    aside = f", while {found.set_aside:,.0f} more chose the epoch" if found.set_aside else ""
    return (
        f"For models that learn from as many pictures of the same kind ({found.learned:,.0f}{aside}) the true share is "
        f"probably between {format_percent(accuracy.low)} and {format_percent(accuracy.high)} "
        "(95\N{NO-BREAK SPACE}% interval). It covers the choice of the pictures, but is of one division into folds, "
        "and not of settings that were chosen by looking at this figure."
    )


def _against_single_split(found: CrossValidation, evaluation: ClassifierEvaluation) -> str:
    value, interval = format_estimate(_single_split(found, evaluation), format_percent)
    ratio = width_ratio(found, evaluation)
    narrower = "" if ratio is None else "; the interval above is not narrower"
    if ratio is not None and ratio < 1:
        narrower = f"; the interval above is {format_percent(1 - ratio)} narrower"
    return (
        f"On the {counted(evaluation.fine_tuned.pictures, 'test picture')} alone the same kind of model has {value} "
        f"({interval}){narrower}."
    )


def _exported_model(found: CrossValidation, trained: int, *, kept_head: bool) -> str:
    model = f"The exported model is none of these: it learned from {counted(trained, 'picture')}"
    if found.model == "head" and not kept_head:
        return (
            f"{model} and was fine-tuned, which evaluate.folds_fine_tune: true repeats in each fold. Its own figure is "
            "that of the test set."
        )
    return f"{model}, in the same way."


def _pinned(found: CrossValidation) -> list[str]:
    if not found.pinned:
        return []
    return [f"{counted(found.pinned, 'picture')} that a source pins to test stayed apart, for the test set alone."]


def _alternatives_table(found: CrossValidation) -> Table:
    measured = found.predictions[found.model]
    models = {f"{NAMES[found.model]}, as above": compare(measured, measured)}
    models |= {NAMES[name]: other for name, other in found.alternatives.items()}
    rows = tuple(
        (
            name,
            *format_estimate(other.accuracy, format_percent),
            format_estimate(other.log_loss, format_decimal)[0],
            _points(other.difference),
        )
        for name, other in models.items()
    )
    return Table(
        "Other models on the same folds",
        ("model", "accuracy", "95\N{NO-BREAK SPACE}% interval", "log loss", "accuracy against the first, points"),
        rows if found.alternatives else (),
    )


def _points(difference: Estimate) -> str:
    """A difference of two accuracies in points with its interval, and whether it is more than chance."""
    if difference.value is None or difference.low is None or difference.high is None:
        return difference.note or difference.absent
    value, low, high = (
        f"{100 * x:+.1f}".replace("-", "\N{MINUS SIGN}") for x in (difference.value, difference.low, difference.high)
    )
    judgement = "better" if difference.low > 0 else "worse" if difference.high < 0 else "may be chance"
    return f"{value} ({low} to {high}): {judgement}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
