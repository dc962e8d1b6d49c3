"""Both detectors' boxes -> metrics, plots, gallery and report: everything that the stage writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.base.detections import Detection, SplitDetections
from headstart.base.files import json_rows
from headstart.base.manifest import Manifest
from headstart.evaluation.detector.gallery import case_gallery, find_cases
from headstart.evaluation.detector.outcomes import count_pairs, find_outcomes, label_pairs
from headstart.evaluation.detector.plots import detector_plot_csvs, detector_plots
from headstart.evaluation.detector.report import render_detector_report
from headstart.evaluation.detector.suppression import Suppression
from headstart.evaluation.history import History
from headstart.evaluation.metrics_json import metrics_json
from headstart.evaluation.report_facts import ReportFacts
from headstart.evaluation.report_tables import counted
from headstart.evaluation.slices import AP50, divide, present_slices
from headstart.evaluation.writer import Results
from headstart.metrics.coco_matching import match_detections
from headstart.metrics.detection import DetectorEvaluation, DetectorMetrics, evaluate_detectors
from headstart.metrics.detection_slices import ap50_slice_figures
from headstart.metrics.estimate import estimates_json
from headstart.metrics.threshold import choose_threshold, sweep_thresholds
from headstart.params.root import EvaluateParams


@dataclass(frozen=True)
class DetectorSplits:
    """The val set, on which the threshold is chosen, the test set, and the root of the pictures' file names."""

    root: Path
    val: Manifest
    test: Manifest


def detector_results(
    splits: DetectorSplits,
    head_only: SplitDetections,
    fine_tuned: SplitDetections,
    *,
    params: EvaluateParams,
    seed: int,
    histories: Mapping[str, History],
    facts: ReportFacts,
    suppression: Suppression | None = None,
) -> tuple[DetectorEvaluation, Results]:
    """Evaluate both models; the same arguments give the same bytes.

    Args:
        splits: val and test.
        head_only: detections of the model with the frozen backbone.
        fine_tuned: detections of the fine-tuned model.
        params: the section `evaluate`.
        seed: of the bootstrap.
        histories: of the training stages, in order; their score is AP50.
        facts: for the report; its counts are boxes.
        suppression: by which both models' boxes were selected; None: within labels.

    Raises:
        UserError: a picture that the gallery shows is missing.
    """
    test, names = splits.test, splits.test.labels()
    head_only_matches, matches = (match_detections(test, model.test) for model in (head_only, fine_tuned))
    head_only_val, val = (match_detections(splits.val, model.val).classes for model in (head_only, fine_tuned))
    threshold = choose_threshold(val)
    evaluation = evaluate_detectors(
        (head_only_matches, choose_threshold(head_only_val)),
        (matches, threshold),
        names,
        crowds=sum(annotation.iscrowd for annotation in test.annotations),
        resamples=params.bootstrap,
        seed=seed,
    )
    suppression = suppression or Suppression(across_labels=False)
    outcomes = find_outcomes(test, fine_tuned.test, matches, threshold.value)
    head_only_threshold = evaluation.head_only.threshold.value
    head_only_outcomes = find_outcomes(test, head_only.test, head_only_matches, head_only_threshold)
    counts = {"head_only": head_only_outcomes.counts(), "test": outcomes.counts()}
    pairs = label_pairs(test, fine_tuned.test, outcomes)
    confusion = count_pairs(pairs, len(names))
    plots = detector_plots(
        head_only_matches,
        matches,
        names,
        confusion=confusion,
        val=sweep_thresholds(val),
        threshold=threshold,
        histories=histories,
    )
    slicings = divide(test.images, params.slices, splits.root)
    slices, slice_section = present_slices(
        ap50_slice_figures(slicings, matches, resamples=params.bootstrap, seed=seed),
        f"the {counted(len(test.images), 'test picture')}, with the boxes of the exported model",
        AP50,
    )
    cases = find_cases(splits.root, test, fine_tuned.test, outcomes, threshold.value, params.gallery)
    results = Results(
        metrics={**detector_metrics_json(evaluation, counts, suppression, facts.vain_lr), **slices},
        predictions=coco_results_json(fine_tuned.test),
        plots=plots,
        plot_csvs=detector_plot_csvs(matches, names, pairs),
        gallery=case_gallery(cases),
        report=render_detector_report(
            evaluation,
            names,
            confusion=confusion,
            plots=plots,
            cases=cases,
            facts=facts,
            outcomes=counts,
            suppression=suppression,
            slices=slice_section,
        ),
    )
    return evaluation, results


def detector_metrics_json(
    evaluation: DetectorEvaluation,
    outcomes: Mapping[str, Mapping[str, int]],
    suppression: Suppression,
    vain_lr: float = 0.0,
) -> dict[str, object]:
    """metrics.json of a detector.

    Args:
        evaluation: of both models.
        outcomes: how many boxes have each outcome at the threshold, by the model's key, `test` or `head_only`.
        suppression: by which the boxes were selected.
        vain_lr: as in ReportFacts.
    """
    metrics = metrics_json(evaluation, _model_metrics, "AP", vain_lr)
    for model, counts in outcomes.items():
        metrics[model] = {**metrics[model], "outcomes": dict(counts)}
    return {**metrics, "class_agnostic_nms": suppression.to_json()}


def _model_metrics(metrics: DetectorMetrics) -> dict[str, object]:
    return {
        **estimates_json(metrics.estimates),
        "threshold": metrics.threshold.value,
        **estimates_json(metrics.at_threshold),
        "pictures": metrics.pictures,
        "units": metrics.units,
        "boxes": metrics.boxes,
        "crowds": metrics.crowds,
        "per_class": {
            name: {**estimates_json({"AP": of_label.ap, "AP50": of_label.ap50}), "boxes": of_label.boxes}
            for name, of_label in metrics.per_class.items()
        },
    }


def coco_results_json(detections: Sequence[Detection]) -> str:
    """predictions.json: COCO results, which pycocotools and FiftyOne read beside the split's manifest; one box a line.

    Boxes are rounded to thousandths of a pixel, scores to millionths.
    """
    return json_rows(
        {
            "image_id": detection["image_id"],
            "category_id": detection["category_id"],
            "bbox": [round(float(value), 3) for value in detection["bbox"]],
            "score": round(float(detection["score"]), 6),
        }
        for detection in detections
    )
