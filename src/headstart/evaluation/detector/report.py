"""report.html of a detector."""

from collections.abc import Mapping, Sequence

from headstart.base.arrays import Ints
from headstart.base.detections import BACKGROUND
from headstart.evaluation.charts import Plot
from headstart.evaluation.detector.gallery import CASE_KINDS, FALSE_ALARM, HIT, MISS, SECOND_BOX, GalleryCase
from headstart.evaluation.detector.suppression import Suppression
from headstart.evaluation.report_facts import ReportFacts
from headstart.evaluation.report_page import improvement_sentence, render_page
from headstart.evaluation.report_tables import (
    MetricRow,
    MetricSpec,
    Table,
    class_table,
    counted,
    format_cell,
    format_decimal,
    format_estimate,
    format_percent,
    format_with_interval,
    interval_sentence,
    metric_rows,
)
from headstart.evaluation.slices import SliceSection
from headstart.metrics.detection import DetectorEvaluation, DetectorMetrics
from headstart.metrics.estimate import Estimate

METRIC_SPECS = (
    MetricSpec("AP50", "AP50", "average precision at IoU 0.5: a rough fit is enough", format_decimal),
    MetricSpec("AP75", "AP75", "the same at IoU 0.75: a close fit", format_decimal),
    MetricSpec("AP", "AP", "mean over IoU 0.5, 0.55 … 0.95, COCO’s primary metric: 1 is perfect", format_decimal),
    MetricSpec("AP_small", "AP, small boxes", "AP of boxes below 32 x 32 pixels", format_decimal),
    MetricSpec("AP_medium", "AP, medium boxes", "AP of boxes up to 96 x 96 pixels", format_decimal),
    MetricSpec("AP_large", "AP, large boxes", "AP of larger boxes", format_decimal),
    MetricSpec(
        "AR_1",
        "AR, 1 detection",
        "average recall with one detection per label and picture, mean over the IoUs",
        format_decimal,
    ),
    MetricSpec("AR_10", "AR, 10 detections", "the same with 10", format_decimal),
    MetricSpec("AR_100", "AR, 100 detections", "the same with 100", format_decimal),
)
_GALLERY_HEADINGS = {
    MISS: "Missed (false negatives), the largest first",
    FALSE_ALARM: "False positives, wrong labels and second boxes, the most confident first",
    HIT: "Correct (true positives), the most confident first",
}

_GALLERY_SECTIONS = {kind: kind for kind in CASE_KINDS} | {SECOND_BOX: FALSE_ALARM}
# Keys of `Outcomes.counts`, what they are called, and what they mean.
OUTCOME_NAMES = {
    "correct": ("Correct", "detections on an object of their label"),
    "wrong_label": ("Wrong label", "detections on an object of another label"),
    "second_box": ("Second box", "detections on an object that has a detection already"),
    "nothing_there": ("Nothing there", "detections where no object is annotated"),
    "missed": ("Missed", "objects without a detection"),
}


def render_detector_report(
    evaluation: DetectorEvaluation,
    labels: Sequence[str],
    *,
    confusion: Ints,
    plots: Mapping[str, Plot],
    cases: Sequence[GalleryCase],
    facts: ReportFacts,
    outcomes: Mapping[str, Mapping[str, int]],
    suppression: Suppression,
    slices: SliceSection | None = None,
) -> str:
    """The page as HTML; `confusion` has the background as its last row and column, all else as in `render_page`.

    `outcomes` and `suppression` are as in `detector_metrics_json`; `slices` is left out where it is None.
    """
    fine_tuned = evaluation.fine_tuned
    by_kind = {
        heading: [case for case in cases if _GALLERY_SECTIONS[case.kind] == kind]
        for kind, heading in _GALLERY_HEADINGS.items()
    }
    return render_page(
        "detector_report.html.j2",
        facts,
        unit="box",
        confusion=confusion,
        labels=(*labels, BACKGROUND),
        summary=detector_summary_sentences(evaluation, facts.kept_head),
        metrics=[*detector_metric_rows(evaluation), *outcome_rows(outcomes)],
        classes=detector_class_table(fine_tuned),
        plots=plots,
        fine_tuned=fine_tuned,
        headline=fine_tuned.estimates["AP50"],
        threshold=threshold_sentence(fine_tuned),
        suppression=suppression.sentence(),
        second_boxes=outcomes["test"]["second_box"],
        slices=slices,
        galleries={heading: of_kind for heading, of_kind in by_kind.items() if of_kind},
    )


def detector_metric_rows(evaluation: DetectorEvaluation) -> list[MetricRow]:
    """COCO's metrics of both models, and precision and recall at each model's threshold."""
    head_only, fine_tuned = evaluation.head_only, evaluation.fine_tuned
    rows = metric_rows(METRIC_SPECS, head_only.estimates, fine_tuned.estimates)
    for key, name, meaning in (
        ("precision", "Precision", "share of the detections that are correct"),
        ("recall", "Recall", "share of the boxes that are found"),
        ("f1", "F1", "harmonic mean of precision and recall"),
    ):
        texts: list[str] = []
        for model in (head_only, fine_tuned):
            value, interval = format_estimate(model.at_threshold[key], format_percent)
            at_threshold = f"at threshold {model.threshold.value:.2f}"
            texts += [value, f"{interval}; {at_threshold}" if interval else at_threshold]
        rows.append(MetricRow(name, f"{meaning}, over all labels, at IoU 0.5 and the chosen threshold", *texts))
    return rows


def outcome_rows(outcomes: Mapping[str, Mapping[str, int]]) -> list[MetricRow]:
    """How many boxes of each model have each outcome at its threshold."""
    at = "at IoU 0.5 and the chosen threshold"
    return [
        MetricRow(
            name,
            f"{meaning}, {at}",
            format_cell(outcomes["head_only"][key]),
            "",
            format_cell(outcomes["test"][key]),
            "",
        )
        for key, (name, meaning) in OUTCOME_NAMES.items()
    ]


def detector_summary_sentences(evaluation: DetectorEvaluation, kept_head: str = "") -> list[str]:
    """The results in sentences; `kept_head` is as in ReportFacts."""
    fine_tuned = evaluation.fine_tuned
    ap50, ap = fine_tuned.estimates["AP50"], fine_tuned.estimates["AP"]
    if ap50.value is None or ap.value is None:
        return [*([kept_head] if kept_head else []), f"The test set gives no metric: {ap50.absent}."]
    test_set = f"{counted(fine_tuned.boxes, 'box')} in {counted(fine_tuned.pictures, 'test picture')}"
    recall, precision = (fine_tuned.at_threshold[key] for key in ("recall", "precision"))
    of_detections = (
        "It detects nothing."
        if precision.value is None
        else f"{format_with_interval(precision, format_percent)} of its detections are correct (precision)."
    )
    name = "head-only" if kept_head else "fine-tuned"
    ap_sentence = f"AP, which demands close fits as well, is {format_with_interval(ap, format_decimal)}."
    sentences = [
        *([kept_head] if kept_head else []),
        f"At the threshold {fine_tuned.threshold.value:.2f} the {name} model finds "
        f"{format_with_interval(recall, format_percent)} of {test_set} (recall). {of_detections}",
        f"Its AP50 is {format_decimal(ap50.value)}. {_covered(ap50, fine_tuned)} {ap_sentence}",
    ]
    if evaluation.difference.low is not None and not kept_head:
        sentences.append(improvement_sentence(evaluation.difference, "AP"))
    return sentences


def _covered(ap50: Estimate, metrics: DetectorMetrics) -> str:
    """Between which values AP50 is, and which chances that covers."""
    if ap50.low is None:
        return f"It has {ap50.note}."
    return interval_sentence("it", ap50, format_decimal, pictures=metrics.pictures, units=metrics.units)


def threshold_sentence(metrics: DetectorMetrics) -> str:
    """How the threshold was chosen."""
    threshold = metrics.threshold
    if threshold.f1 is None:
        return (
            "The validation set has no box, so no threshold could be chosen: "
            f"{threshold.value:.2f} is the default, not a choice."
        )
    if threshold.f1 == 0:
        return (
            "On the validation set the model finds nothing at any threshold: "
            f"{threshold.value:.2f} is the default, not a choice."
        )
    test_f1 = metrics.at_threshold["f1"]
    on_test = "" if test_f1.value is None else f", {format_with_interval(test_f1, format_percent)} on the test set"
    return (
        f"The threshold {threshold.value:.2f} has the highest F1, the harmonic mean of precision and recall, on the "
        f"validation set: {format_percent(threshold.f1)} there{on_test}. Over all labels (micro average), at IoU 0.5."
    )


def detector_class_table(metrics: DetectorMetrics) -> Table:
    """AP50 and AP of each label, with intervals."""
    rows = [
        (
            name,
            format_with_interval(of_label.ap50, format_decimal),
            format_with_interval(of_label.ap, format_decimal),
            of_label.boxes,
        )
        for name, of_label in metrics.per_class.items()
    ]
    return class_table(("AP50", "AP", "boxes"), rows)
