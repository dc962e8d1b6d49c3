"""Both classifiers' logits -> metrics, plots, gallery and report: everything that the stage writes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from headstart.base.files import json_rows
from headstart.base.manifest import Image
from headstart.evaluation.classifier.curves import classifier_plot_csvs
from headstart.evaluation.classifier.gallery import find_mistakes, mistake_gallery
from headstart.evaluation.classifier.plots import classifier_plots
from headstart.evaluation.classifier.report import render_classifier_report
from headstart.evaluation.history import History
from headstart.evaluation.metrics_json import METRIC_DIGITS, estimate_json, estimates_json, metrics_json, rounded
from headstart.evaluation.report_facts import ReportFacts
from headstart.evaluation.writer import Results
from headstart.metrics.calibration import ClassifierPredictions, SplitLogits, calibrate_logits
from headstart.metrics.classification import ClassifierEvaluation, ClassifierMetrics, evaluate_classifiers
from headstart.metrics.source_bias import LabelSources
from headstart.params.root import EvaluateParams


@dataclass(frozen=True)
class ClassifierTestSet:
    """The test pictures in the order of the logits, the labels in the order of the classes, and the files' root."""

    root: Path
    images: tuple[Image, ...]
    labels: tuple[str, ...]


def classifier_results(
    test_set: ClassifierTestSet,
    head_only: SplitLogits,
    fine_tuned: SplitLogits,
    *,
    params: EvaluateParams,
    seed: int,
    histories: Mapping[str, History],
    facts: ReportFacts,
    sources: Sequence[LabelSources] = (),
) -> tuple[ClassifierEvaluation, Results]:
    """Evaluate both models; the same arguments give the same bytes.

    Args:
        test_set: pictures and labels.
        head_only: logits of the model with the frozen backbone.
        fine_tuned: logits of the fine-tuned model.
        params: the section `evaluate`.
        seed: of the bootstrap.
        histories: of the training stages, in order.
        facts: for the report.
        sources: by label, how well the source can be predicted from the features.

    Raises:
        UserError: a picture that the gallery shows is missing.
    """
    labels = test_set.labels
    assert [image.label for image in test_set.images] == [labels[c] for c in fine_tuned.test_labels]
    head_only_predictions, predictions = calibrate_logits(head_only), calibrate_logits(fine_tuned)
    evaluation = evaluate_classifiers(head_only_predictions, predictions, labels, params.bootstrap, seed)
    mistakes = find_mistakes(test_set.root, test_set.images, labels, predictions, params.gallery)
    plots = classifier_plots(head_only_predictions, predictions, labels, histories)
    results = Results(
        metrics=classifier_metrics_json(evaluation, sources, facts.kept_head),
        predictions=predictions_json(test_set, {"head_only": head_only_predictions, "fine_tuned": predictions}),
        plots=plots,
        plot_csvs=classifier_plot_csvs(predictions, labels),
        gallery=mistake_gallery(mistakes),
        report=render_classifier_report(
            evaluation, predictions, labels, plots=plots, mistakes=mistakes, facts=facts, sources=sources
        ),
    )
    return evaluation, results


def classifier_metrics_json(
    evaluation: ClassifierEvaluation, sources: Sequence[LabelSources] = (), kept_head: str = ""
) -> Mapping[str, object]:
    """metrics.json; it has `sources` only where the training pictures are of several sources.

    `kept_head` is as in ReportFacts.
    """
    metrics = metrics_json(evaluation, _model_metrics, "accuracy", kept_head)
    return metrics | ({"sources": {label.label: _source_bias_metrics(label) for label in sources}} if sources else {})


def _model_metrics(metrics: ClassifierMetrics) -> dict[str, object]:
    return {
        **estimates_json(metrics.estimates()),
        "temperature": round(metrics.temperature, METRIC_DIGITS),
        "pictures": metrics.pictures,
        "per_class": {name: rounded(asdict(of_label)) for name, of_label in metrics.per_class.items()},
    }


def _source_bias_metrics(label: LabelSources) -> dict[str, float | str]:
    accuracy = estimate_json("balanced_accuracy", label.source_accuracy)
    if not label.compared:
        return {**accuracy, "pictures": sum(label.sources.values())}
    chance = round(1 / len(label.compared), METRIC_DIGITS)
    return {**accuracy, "chance": chance, "pictures": sum(label.compared.values())}


def predictions_json(test_set: ClassifierTestSet, models: Mapping[str, ClassifierPredictions]) -> str:
    """predictions.json, one picture a line; probabilities are the calibrated ones."""
    rows = []
    for number, image in enumerate(test_set.images):
        row: dict[str, object] = {"file_name": image.file_name, "label": image.label}
        for name, predictions in models.items():
            probabilities = predictions.calibrated[number].round(METRIC_DIGITS).tolist()
            row[name] = {
                "predicted": test_set.labels[predictions.predicted[number]],
                "correct": bool(predictions.correct[number]),
                "probabilities": dict(zip(test_set.labels, probabilities, strict=True)),
            }
        rows.append(row)
    return json_rows(rows)
