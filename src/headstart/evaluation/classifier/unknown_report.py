"""Figures of "none of these" and of prediction sets, for metrics.json and for the report."""

from collections.abc import Mapping
from dataclasses import dataclass

from headstart.evaluation.classifier.unknown import Answers, SetFigures, UnknownFigures
from headstart.evaluation.report_tables import (
    Table,
    capital,
    counted,
    format_area,
    format_estimate,
    format_percent,
    format_with_interval,
)
from headstart.metrics import conformal, strangeness
from headstart.metrics.estimate import METRIC_DIGITS, Estimate, estimate_json
from headstart.metrics.rejection import Rejection


@dataclass(frozen=True)
class AnswersSection:
    """What the report's template shows."""

    unknown: tuple[str, ...]
    foreign: Table
    sets: tuple[str, ...]
    coverage: Table


def answers_json(answers: Answers | None) -> dict[str, object]:
    """`unknown` and `prediction_sets` of metrics.json; nothing without rules."""
    if answers is None:
        return {}
    unknown, sets = answers.unknown, answers.sets
    return {
        "unknown": {
            "method": strangeness.METHOD,
            **estimate_json("kept", unknown.kept),
            **_rejection_json(unknown.all_generated),
            "generated": {kind: _rejection_json(figures) for kind, figures in unknown.generated.items()},
            "left_out": {label: _rejection_json(figures) for label, figures in unknown.left_out.items()},
            **({"note": unknown.note} if unknown.note else {}),
        },
        "prediction_sets": {
            "method": conformal.METHOD,
            "confidence": sets.confidence,
            **estimate_json("coverage", sets.coverage),
            **estimate_json("size", sets.size),
            **{name: round(sets.shares.get(count, 0.0), METRIC_DIGITS) for count, name in _SHARE_NAMES.items()},
            "empty": 0.0,
            "per_class": {label: estimate_json("coverage", figure) for label, figure in sets.by_label.items()},
            **({"note": sets.note} if sets.note else {}),
        },
    }


NEARLY_ALL = 0.95
CHANCE = 0.5  # the AUROC of a score that says nothing
_INTERVAL = "95 % interval"
_SHARE_NAMES = {1: "one_label", 2: "two_labels"}


def _rejection_json(figures: Rejection) -> Mapping[str, float | str]:
    return {
        **estimate_json("fpr95", figures.fpr95),
        **estimate_json("auroc", figures.auroc),
        "pictures": figures.pictures,
    }


def answers_section(answers: Answers) -> AnswersSection:
    """The report's section."""
    unknown, sets = answers.unknown, answers.sets
    left_out = {f"label “{label}”, left out": figures for label, figures in unknown.left_out.items()}
    rows = {**unknown.generated, **left_out}
    foreign = tuple(
        (
            name,
            *format_estimate(figures.fpr95, format_percent),
            *format_estimate(figures.auroc, format_area),
            figures.pictures,
        )
        for name, figures in rows.items()
    )
    coverage = tuple((label, *format_estimate(figure, format_percent)) for label, figure in sets.by_label.items())
    return AnswersSection(
        _unknown_sentences(unknown),
        Table("Foreign pictures", ("kind", "taken for a label", _INTERVAL, "AUROC", _INTERVAL, "pictures"), foreign),
        _set_sentences(sets),
        Table("Coverage of the prediction sets by label", ("label", "coverage", _INTERVAL), coverage),
    )


def _area(auroc: Estimate) -> str:
    return format_with_interval(auroc, format_area)


def _in_words(share: Estimate) -> str:
    """`94.1 % (90.0 % to 96.7 %)`."""
    return format_with_interval(share, format_percent)


def _unknown_sentences(unknown: UnknownFigures) -> tuple[str, ...]:
    """How many pictures are kept, how many foreign ones are not turned away, and what none of it shows."""
    missed = unknown.all_generated
    sentences = [
        f"A picture is “none of these” where it lies farther from the {counted(unknown.bank, 'training picture')} than "
        f"a threshold that about {100 * strangeness.KEPT:.0f} in 100 familiar pictures stay within "
        f"({strangeness.METHOD}, of features divided by their length; the threshold comes from "
        f"{counted(unknown.threshold_from, 'picture')} that the backbone did not learn from).",
        f"Of the test pictures it keeps {_in_words(unknown.kept)}. Of {counted(missed.pictures, 'generated picture')} "
        f"it takes {_in_words(missed.fpr95)} for a label.",
    ]
    if unknown.note:
        sentences.append(f"{capital(unknown.note)}.")
    if unknown.left_out:
        others = "one of the other labels" if len(unknown.left_out) > 2 else "the other label"
        worst = max(unknown.left_out, key=lambda label: unknown.left_out[label].fpr95.value or 0)
        figures = unknown.left_out[worst]
        familiar = ""
        if figures.auroc.high is not None and figures.auroc.high < CHANCE:
            familiar = f"; they look even more familiar than test pictures do (AUROC {_area(figures.auroc)})"
        sentences.append(
            f"Harder is a label that training did not have. Measured without “{worst}”, the worst case, "
            f"{_in_words(figures.fpr95)} of its pictures would be taken for {others}{familiar}. The network itself has "
            "learned this label; one that it has never seen may fare otherwise."
        )
    return tuple(sentences)


def _set_sentences(sets: SetFigures) -> tuple[str, ...]:
    """Coverage, size, and where the coverage falls short of what was promised."""
    promised = f"{100 * sets.confidence:g}\N{NO-BREAK SPACE}%"
    one, two = (format_percent(sets.shares.get(count, 0.0)) for count in (1, 2))
    promise = (
        f"For each label at least {promised} of the sets are to hold it where it is right"
        if sets.for_each_label
        else f"At least {promised} of the sets are to hold the right one"
    )
    thresholds = ", one a label" if sets.for_each_label else "; labels with few pictures share one"
    size = format_with_interval(sets.size, "{:.2f}".format)
    approximate = " Those models are not the exported one, so the promise is approximate." if sets.out_of_fold else ""
    sentences = [
        f"A prediction set holds the labels that a picture may have. {promise}; more do where the most probable label "
        "alone is right more often, since no set is empty. The thresholds (conformal prediction, LAC"
        f"{thresholds}) are fitted on {sets.calibrated_on}.{approximate}",
        f"On the test pictures {_in_words(sets.coverage)} do. The sets hold {size} labels on average. Counts of this "
        f"test set: {one} hold one label, {two} two, none is empty.",
    ]
    if sets.shares.get(1, 0.0) >= NEARLY_ALL and sets.confidence < NEARLY_ALL:
        sentences.append(
            f"Nearly every set holds one label, since the model is right more often than {promised}; with a higher "
            "evaluate.confidence it names two labels more often."
        )
    if sets.note:
        sentences.append(f"{capital(sets.note)}.")
    short = {"all labels together": sets.coverage, **{f"“{label}”": one for label, one in sets.by_label.items()}}
    below = [name for name, figure in short.items() if figure.high is not None and figure.high < sets.confidence]
    if below:
        sentences.append(
            f"Coverage falls short of {promised} for {', '.join(below)}: the whole interval lies below it. The test "
            "pictures differ from those that the rule was fitted on."
        )
    return tuple(sentences)
