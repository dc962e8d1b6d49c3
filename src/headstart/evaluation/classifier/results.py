"""Both classifiers' logits -> metrics, plots, gallery and report: everything that the stage writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.base.files import json_rows
from headstart.base.manifest import Image
from headstart.base.units import unit_numbers
from headstart.cross_validation.figures import CrossValidation, widen
from headstart.evaluation.classifier.calibration import choose_calibration
from headstart.evaluation.classifier.cross_validated import cross_validated_results
from headstart.evaluation.classifier.cross_validated_sentences import NAMES
from headstart.evaluation.classifier.curves import classifier_plot_csvs
from headstart.evaluation.classifier.gallery import find_mistakes, mistake_gallery
from headstart.evaluation.classifier.model_features import ModelFeatures
from headstart.evaluation.classifier.plots import classifier_plots
from headstart.evaluation.classifier.report import render_classifier_report
from headstart.evaluation.classifier.unknown import fit_answers
from headstart.evaluation.classifier.unknown_report import answers_json, answers_section
from headstart.evaluation.history import History
from headstart.evaluation.metrics_json import metrics_json
from headstart.evaluation.report_facts import ReportFacts
from headstart.evaluation.slices import ExaminedPictures, slice_results
from headstart.evaluation.writer import Results
from headstart.metrics.calibration import ClassifierPredictions, SplitLogits, calibrate_logits
from headstart.metrics.calibration_error import CalibrationError
from headstart.metrics.classification import ClassifierEvaluation, ClassifierMetrics, evaluate_classifiers
from headstart.metrics.estimate import METRIC_DIGITS, estimate_json, estimates_json
from headstart.metrics.source_bias import LabelSources
from headstart.models.answer_rules import NO_RULES
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
    cross_validation: CrossValidation | None = None,
    features: ModelFeatures | None = None,
) -> tuple[ClassifierEvaluation, Results]:
    """Evaluate both models; the same arguments give the same bytes.

    Args:
        test_set: pictures and labels.
        head_only: logits of the model with the frozen backbone.
        fine_tuned: logits of the fine-tuned model.
        params: the section `evaluate`.
        seed: of what is drawn for the calibration error.
        histories: of the training stages, in order.
        facts: for the report.
        sources: by label, how well the source can be predicted from the features.
        cross_validation: None where there was none.
        features: of the fine-tuned model; without them there are no rules for "none of these".

    Raises:
        UserError: a picture that the gallery shows is missing.
    """
    labels = test_set.labels
    assert [image.label for image in test_set.images] == [labels[c] for c in fine_tuned.test_labels]
    units = unit_numbers(test_set.images)
    shas, ships_head = [image.sha256 for image in test_set.images], head_only is fine_tuned
    val_units = np.arange(len(fine_tuned.val)) if features is None else features.val_units
    head_calibration, calibration = (
        choose_calibration(logits, val_units, cross_validation, shas, model=model)
        for logits, model in ((head_only, "head"), (fine_tuned, "head" if ships_head else "fine_tuned"))
    )
    head_only_predictions = calibrate_logits(head_only, units, head_calibration.temperature)
    predictions = calibrate_logits(fine_tuned, units, calibration.temperature)
    evaluation = evaluate_classifiers(head_only_predictions, predictions, labels, seed, params.bootstrap)
    mistakes = find_mistakes(test_set.root, test_set.images, labels, predictions, params.gallery)
    plots = classifier_plots(head_only_predictions, predictions, labels, histories)
    cross_validated = cross_validated_results(cross_validation, evaluation, facts)
    examined = examined_pictures(test_set, predictions, cross_validation)
    slices, slice_section = slice_results(examined, params.slices, test_set.root)
    answers = None
    if features is not None:
        answers = fit_answers(
            features, fine_tuned, predictions, labels, calibration, params.confidence, seed if ships_head else None
        )
    results = Results(
        metrics={
            **classifier_metrics_json(evaluation, sources, facts.vain_lr),
            **cross_validated.metrics,
            **slices,
            **answers_json(answers),
        },
        predictions=predictions_json(test_set, {"head_only": head_only_predictions, "fine_tuned": predictions}),
        plots=plots,
        plot_csvs=classifier_plot_csvs(predictions, labels),
        gallery=mistake_gallery(mistakes),
        report=render_classifier_report(
            evaluation,
            predictions,
            labels,
            plots=plots,
            mistakes=mistakes,
            facts=facts,
            sources=sources,
            cross_validation=cross_validated.section,
            slices=slice_section,
            answers=answers_section(answers) if answers else None,
            calibration=calibration.sentence,
        ),
        lead=cross_validated.line,
        out_of_fold=cross_validated.rows,
        answer_rules=answers.rules.to_bytes() if answers else NO_RULES,
    )
    return evaluation, results


def examined_pictures(
    test_set: ClassifierTestSet, predictions: ClassifierPredictions, cross_validation: CrossValidation | None
) -> ExaminedPictures:
    """The pictures whose slices are looked at: those of cross-validation, which are more, else the test set."""
    if cross_validation is None:
        what = f"the {len(test_set.images):,} test pictures, predicted by the exported model"
        return ExaminedPictures(test_set.images, predictions.correct, unit_numbers(test_set.images), what)
    examined, own = cross_validation.examined, cross_validation.predictions[cross_validation.model]
    what = (
        f"{len(examined.images):,} pictures, each predicted in cross-validation by a model that did not see it "
        f"({NAMES[cross_validation.model]})"
    )
    return ExaminedPictures(examined.images, own.correct, examined.units, what, widen)


def classifier_metrics_json(
    evaluation: ClassifierEvaluation, sources: Sequence[LabelSources] = (), vain_lr: float = 0.0
) -> dict[str, object]:
    """metrics.json; it has `sources` only where the training pictures are of several sources.

    `vain_lr` is as in ReportFacts.
    """
    metrics: dict[str, object] = {**metrics_json(evaluation, _model_metrics, "accuracy", vain_lr)}
    return metrics | ({"sources": {label.label: _source_bias_metrics(label) for label in sources}} if sources else {})


def _model_metrics(metrics: ClassifierMetrics) -> dict[str, object]:
    return {
        **estimates_json(metrics.estimates()),
        **_calibration_error_json("ece", metrics.ece),
        **_calibration_error_json("ece_calibrated", metrics.ece_calibrated),
        "temperature": round(metrics.temperature, METRIC_DIGITS),
        "pictures": metrics.pictures,
        "units": metrics.units,
        "per_class": {
            name: {
                **estimates_json({"recall": of.recall, "precision": of.precision, "f1": of.f1}),
                "support": of.support,
            }
            for name, of in metrics.per_class.items()
        },
    }


def _calibration_error_json(name: str, error: CalibrationError) -> dict[str, float]:
    """`<name>`, and between which values that of a perfectly calibrated model mostly lies."""
    values = {name: error.value, f"{name}_perfect_low": error.perfect_low, f"{name}_perfect_high": error.perfect_high}
    return {key: round(value, METRIC_DIGITS) for key, value in values.items()}


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
