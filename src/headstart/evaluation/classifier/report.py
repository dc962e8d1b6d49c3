"""report.html of a classifier."""

from collections.abc import Mapping, Sequence

import numpy as np

from headstart.evaluation.charts import Plot
from headstart.evaluation.classifier.cross_validated import CrossValidatedSection
from headstart.evaluation.classifier.gallery import Mistake
from headstart.evaluation.classifier.unknown_report import AnswersSection
from headstart.evaluation.report_facts import ReportFacts
from headstart.evaluation.report_page import improvement_sentence, render_page
from headstart.evaluation.report_tables import (
    MetricRow,
    MetricSpec,
    Table,
    class_table,
    counted,
    format_decimal,
    format_percent,
    format_with_interval,
    interval_sentence,
    metric_rows,
)
from headstart.evaluation.slices import SliceSection
from headstart.metrics.calibration import ECE_BINS, ClassifierPredictions
from headstart.metrics.calibration_error import CalibrationError
from headstart.metrics.classification import ClassifierEvaluation, ClassifierMetrics
from headstart.metrics.source_bias import LabelSources

METRIC_SPECS = (
    MetricSpec("accuracy", "Accuracy", "share of the test pictures predicted correctly", format_percent),
    MetricSpec("balanced_accuracy", "Balanced accuracy", "mean recall: every label counts equally", format_percent),
    MetricSpec(
        "roc_auc",
        "ROC AUC",
        "probability that a picture of a label is scored above one of another: 0.5 is chance",
        format_decimal,
    ),
    MetricSpec("log_loss", "Log loss", "cross-entropy of the calibrated probabilities: 0 is perfect", format_decimal),
    MetricSpec(
        "brier_score", "Brier score", "squared error of the calibrated probabilities: 0 is perfect", format_decimal
    ),
)


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
        summary=summary_sentences(evaluation, predictions, labels, facts.kept_head),
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
        mistakes=mistakes,
        mistake_count=int(len(predictions.labels) - predictions.correct.sum()),
    )


def summary_sentences(
    evaluation: ClassifierEvaluation, predictions: ClassifierPredictions, labels: Sequence[str], kept_head: str = ""
) -> list[str]:
    """The results in sentences; `kept_head` is as in ReportFacts."""
    fine_tuned = evaluation.fine_tuned
    accuracy = fine_tuned.accuracy.value
    assert accuracy is not None
    support = np.bincount(predictions.labels, minlength=len(labels))
    same = bool(kept_head) or evaluation.difference.low is None
    return [
        *([kept_head] if kept_head else []),
        f"The {'head-only' if kept_head else 'fine-tuned'} model predicts {format_percent(accuracy)} of "
        f"{counted(fine_tuned.pictures, 'test picture')} correctly.",
        interval_sentence(
            "its accuracy", fine_tuned.accuracy, format_percent, pictures=fine_tuned.pictures, units=fine_tuned.units
        ),
        f"Always predicting “{labels[int(support.argmax())]}” would be correct for "
        f"{format_percent(support.max() / support.sum())}.",
        *([] if same else [improvement_sentence(evaluation.difference, "accuracy")]),
    ]


def calibration_error_rows(evaluation: ClassifierEvaluation) -> list[MetricRow]:
    """Calibration error of both models, after and before calibration, beside that of a perfectly calibrated one."""
    gap = f"mean gap between confidence and accuracy over {ECE_BINS} bins, never below 0"
    models = (evaluation.head_only, evaluation.fine_tuned)
    # How far the pictures of a unit are right or wrong together is a guess.
    about = "about " if evaluation.fine_tuned.units < evaluation.fine_tuned.pictures else ""
    return [
        _calibration_error_row("Calibration error (ECE)", gap, about, *(model.ece_calibrated for model in models)),
        _calibration_error_row(
            "… before calibration",
            "the same of the uncalibrated probabilities",
            about,
            *(model.ece for model in models),
        ),
    ]


def _calibration_error_row(
    name: str, meaning: str, about: str, head_only: CalibrationError, fine_tuned: CalibrationError
) -> MetricRow:
    texts = []
    for error in (head_only, fine_tuned):
        low, high = format_percent(error.perfect_low), format_percent(error.perfect_high)
        texts += [format_percent(error.value), f"a perfectly calibrated model would show {about}{low} to {high}"]
    return MetricRow(name, meaning, *texts)


def classifier_class_table(metrics: ClassifierMetrics) -> Table:
    """Recall, precision and F1 of each label, with intervals."""
    rows = []
    for name, of_label in metrics.per_class.items():
        values = (of_label.recall, of_label.precision, of_label.f1)
        recall, precision, f1 = (format_with_interval(value, format_percent) for value in values)
        rows.append((name, recall, precision, f1, of_label.support))
    return class_table(("recall", "precision", "F1", "pictures"), rows)
