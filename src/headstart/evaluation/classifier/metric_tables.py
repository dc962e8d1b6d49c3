"""Tables of a classifier's metrics: their names and meanings, calibration error, metrics by label."""

from headstart.evaluation.report_tables import (
    EXPORTED_BY_LABEL,
    MetricRow,
    MetricSpec,
    Table,
    class_table,
    format_area,
    format_decimal,
    format_percent,
    format_with_interval,
)
from headstart.metrics.calibration import ECE_BINS
from headstart.metrics.calibration_error import CalibrationError
from headstart.metrics.classification import ClassifierEvaluation, ClassifierMetrics

METRIC_SPECS = (
    MetricSpec("accuracy", "Accuracy", "share of the test pictures predicted correctly", format_percent),
    MetricSpec("balanced_accuracy", "Balanced accuracy", "mean recall: every label counts equally", format_percent),
    MetricSpec(
        "roc_auc",
        "ROC AUC",
        "probability that a picture of a label is scored above one of another: 0.5 is chance",
        format_area,
    ),
    MetricSpec("log_loss", "Log loss", "cross-entropy of the calibrated probabilities: 0 is perfect", format_decimal),
    MetricSpec(
        "brier_score", "Brier score", "squared error of the calibrated probabilities: 0 is perfect", format_decimal
    ),
)


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


def calibrated_sentence(evaluation: ClassifierEvaluation) -> str:
    """What it means where every calibration error is one that a perfectly calibrated model may show; else empty."""
    models = (evaluation.head_only, evaluation.fine_tuned)
    errors = [error for model in models for error in (model.ece, model.ece_calibrated)]
    if all(error.perfect_low <= error.value <= error.perfect_high for error in errors):
        return " All are inside it: no miscalibration is shown, nor any gain by calibrating."
    return ""


def classifier_class_table(metrics: ClassifierMetrics, caption: str = EXPORTED_BY_LABEL) -> Table:
    """Recall, precision and F1 of each label, with intervals; the caption says of which model and pictures."""
    rows = []
    for name, of_label in metrics.per_class.items():
        values = (of_label.recall, of_label.precision, of_label.f1)
        recall, precision, f1 = (format_with_interval(value, format_percent) for value in values)
        rows.append((name, recall, precision, f1, of_label.support))
    return class_table(("recall", "precision", "F1", "pictures"), rows, caption)
