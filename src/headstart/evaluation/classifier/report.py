"""report.html of a classifier."""

from collections.abc import Mapping, Sequence

import numpy as np

from headstart.evaluation.charts import Plot
from headstart.evaluation.classifier.gallery import Mistake
from headstart.evaluation.report_facts import ReportFacts
from headstart.evaluation.report_page import improvement_sentence, render_page
from headstart.evaluation.report_tables import (
    MetricSpec,
    Table,
    class_table,
    counted,
    format_decimal,
    format_interval,
    format_or_dash,
    format_percent,
    metric_rows,
)
from headstart.metrics.calibration import ECE_BINS, ClassifierPredictions
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
    MetricSpec("log_loss", "Log loss", "cross-entropy of the uncalibrated probabilities: 0 is perfect", format_decimal),
    MetricSpec(
        "ece",
        "Calibration error (ECE)",
        f"mean gap between confidence and accuracy over {ECE_BINS} bins, uncalibrated",
        format_percent,
    ),
    MetricSpec(
        "ece_calibrated",
        "… after calibration",
        "the same with the temperature fitted on the validation set",
        format_percent,
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
) -> str:
    """The page as HTML; `predictions` are the fine-tuned model's, all else as `render_page` takes it."""
    fine_tuned = evaluation.fine_tuned
    return render_page(
        "classifier_report.html.j2",
        facts,
        unit="picture",
        confusion=predictions.confusion,
        labels=labels,
        summary=summary_sentences(evaluation, predictions, labels, facts.kept_head),
        metrics=metric_rows(METRIC_SPECS, evaluation.head_only.estimates(), fine_tuned.estimates()),
        classes=classifier_class_table(fine_tuned),
        plots=plots,
        fine_tuned=fine_tuned,
        sources=sources,
        calibration=calibration_sentence(fine_tuned.temperature),
        mistakes=mistakes,
        mistake_count=int(len(predictions.labels) - predictions.correct.sum()),
    )


def summary_sentences(
    evaluation: ClassifierEvaluation, predictions: ClassifierPredictions, labels: Sequence[str], kept_head: str = ""
) -> list[str]:
    """The results in sentences; `kept_head` is as in ReportFacts."""
    fine_tuned = evaluation.fine_tuned
    pictures = counted(fine_tuned.pictures, "test picture")
    accuracy = fine_tuned.accuracy.value
    assert accuracy is not None
    support = np.bincount(predictions.labels, minlength=len(labels))
    certainty = (
        "On pictures of the same kind its accuracy is probably between "
        f"{format_interval(fine_tuned.accuracy, format_percent)}."
    )
    if predictions.correct.all():  # the bootstrap interval is empty then; this is the exact binomial bound
        error_rate = 1 - 0.05 ** (1 / fine_tuned.pictures)
        certainty = (
            f"No mistake among {pictures} is no proof of an error rate of 0: with so few, an error rate of up to "
            f"{format_percent(error_rate)} cannot be ruled out (95\N{NO-BREAK SPACE}% bound)."
        )
    return [
        *([kept_head] if kept_head else []),
        f"The {'head-only' if kept_head else 'fine-tuned'} model predicts {format_percent(accuracy)} of {pictures} "
        "correctly.",
        certainty,
        f"Always predicting “{labels[int(support.argmax())]}” would be correct for "
        f"{format_percent(support.max() / support.sum())}.",
        *([] if kept_head else [improvement_sentence(evaluation.difference, "accuracy")]),
    ]


def calibration_sentence(temperature: float) -> str:
    """The fitted temperature, and whether the uncalibrated model was over- or underconfident."""
    if temperature == 1:
        return "The model is left uncalibrated: without a mistake on the validation set there is no temperature to fit."
    was = "overconfident" if temperature > 1 else "underconfident"
    return (
        "Calibration by temperature scaling divides the logits by one number, fitted on the validation set: "
        f"{temperature:.2f}. Uncalibrated, the model was {was} there. Calibration changes no predicted label, only the "
        "confidence."
    )


def classifier_class_table(metrics: ClassifierMetrics) -> Table:
    """Recall, precision and F1 of each label."""
    rows = []
    for name, of_label in metrics.per_class.items():
        values = (of_label.recall, of_label.precision, of_label.f1)
        recall, precision, f1 = (format_or_dash(value, format_percent) for value in values)
        rows.append((name, recall, precision, f1, of_label.support))
    return class_table(("recall", "precision", "F1", "pictures"), rows)
