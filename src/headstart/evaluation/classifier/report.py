"""report.html of a classifier."""

from collections.abc import Mapping, Sequence

from headstart.evaluation.charts import Plot
from headstart.evaluation.classifier.cross_validated_report import CrossValidatedSection, Gain, gain_sentence
from headstart.evaluation.classifier.gallery import Mistake
from headstart.evaluation.classifier.metric_tables import (
    METRIC_SPECS,
    calibrated_sentence,
    calibration_error_rows,
    classifier_class_table,
)
from headstart.evaluation.classifier.unknown_report import AnswersSection
from headstart.evaluation.report_facts import ReportFacts
from headstart.evaluation.report_page import improvement_sentence, render_page
from headstart.evaluation.report_tables import (
    baseline_sentence,
    counted,
    format_percent,
    interval_sentence,
    metric_rows,
)
from headstart.evaluation.slices import SliceSection
from headstart.metrics.calibration import ClassifierPredictions
from headstart.metrics.classification import ClassifierEvaluation
from headstart.metrics.source_bias import LabelSources


def render_classifier_report(
    evaluation: ClassifierEvaluation,
    predictions: ClassifierPredictions,
    labels: Sequence[str],
    *,
    plots: Mapping[str, Plot],
    mistakes: Sequence[Mistake],
    facts: ReportFacts,
    sources: Sequence[LabelSources] = (),
    cross_validation: CrossValidatedSection | None = None,
    slices: SliceSection | None = None,
    answers: AnswersSection | None = None,
    calibration: str,
) -> str:
    """The page as HTML.

    `predictions` are the fine-tuned model's, `calibration` says how they were calibrated, all else is as `render_page`
    takes it.
    """
    fine_tuned = evaluation.fine_tuned
    return render_page(
        "classifier_report.html.j2",
        facts,
        unit="picture",
        confusion=predictions.confusion,
        labels=labels,
        summary=summary_sentences(
            evaluation, predictions, labels, facts.kept_head, cross_validation.gain if cross_validation else None
        ),
        metrics=[
            *metric_rows(METRIC_SPECS, evaluation.head_only.estimates(), fine_tuned.estimates()),
            *calibration_error_rows(evaluation),
        ],
        classes=classifier_class_table(fine_tuned),
        plots=plots,
        fine_tuned=fine_tuned,
        sources=sources,
        cross_validation=cross_validation,
        slices=slices,
        answers=answers,
        calibration=calibration,
        calibrated=calibrated_sentence(evaluation),
        mistakes=mistakes,
        mistake_count=int(len(predictions.labels) - predictions.correct.sum()),
    )


def summary_sentences(
    evaluation: ClassifierEvaluation,
    predictions: ClassifierPredictions,
    labels: Sequence[str],
    kept_head: str = "",
    gain: Gain | None = None,
) -> list[str]:
    """The results on the test set in sentences.

    `kept_head` is as in ReportFacts, `gain` what fine-tuning changed in cross-validation.
    """
    fine_tuned = evaluation.fine_tuned
    accuracy = fine_tuned.accuracy.value
    assert accuracy is not None
    improvement = []
    if not kept_head and evaluation.difference.low is not None:
        improvement = [improvement_sentence(evaluation.difference, "accuracy")]
        improvement += [gain_sentence(gain, evaluation.difference)] if gain else []
    return [
        *([kept_head] if kept_head else []),
        f"The {'head-only' if kept_head else 'fine-tuned'} model predicts {format_percent(accuracy)} of "
        f"{counted(fine_tuned.pictures, 'test picture')} correctly.",
        interval_sentence(
            "its accuracy", fine_tuned.accuracy, format_percent, pictures=fine_tuned.pictures, units=fine_tuned.units
        ),
        f"{baseline_sentence(predictions.labels, labels)}.",
        *([" ".join(improvement)] if improvement else []),
    ]
