"""The evaluate stage of task `detect`."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from headstart.base.detections import SplitDetections
from headstart.base.manifest import Manifest, Split
from headstart.evaluation.detector.learning import learning_sentence
from headstart.evaluation.detector.predictions import StageDetector
from headstart.evaluation.detector.results import DetectorSplits, detector_results
from headstart.evaluation.detector.suppression import (
    Suppression,
    candidate_settings,
    choose_suppression,
    overlap_of_labels,
)
from headstart.evaluation.history import TRAINING_STAGES, read_histories
from headstart.evaluation.report_facts import collect_report_facts
from headstart.evaluation.slices import check_slices
from headstart.evaluation.writer import Results
from headstart.metrics.estimate import Estimate
from headstart.params.root import Params


def evaluate_detector(splits: Mapping[Split, Manifest], params: Params, root: Path) -> tuple[Results, str]:
    """Run both detectors on val and test, and compute what the stage writes.

    Args:
        splits: the manifests of train, val and test.
        params: all of params.yaml.
        root: the repository root.

    Returns:
        what is written, and test AP50 and AP with their intervals in one line.

    Raises:
        UserError: a file of an earlier stage is missing or unreadable, or `evaluate.slices` names no property.
    """
    check_slices(params.evaluate.slices, [image for manifest in splits.values() for image in manifest.images])
    head_only_model, fine_tuned_model = (StageDetector(stage, params, root) for stage in TRAINING_STAGES)
    head_only, fine_tuned, suppression = detect_with_both(head_only_model, fine_tuned_model, splits, params)
    histories = read_histories(root, "AP50")
    learning = learning_sentence(histories["fine-tune"], params.fine_tune)
    if learning:
        print(f"evaluate: {learning}")
    evaluation, results = detector_results(
        DetectorSplits(root, splits["val"], splits["test"]),
        head_only,
        fine_tuned,
        params=params.evaluate,
        seed=params.seed,
        histories=histories,
        facts=collect_report_facts(
            params,
            fine_tuned_model.spec,
            splits,
            root,
            counts={split: _count_boxes(manifest) for split, manifest in splits.items()},
            notes=[learning] if learning else [],
        ),
        suppression=suppression,
    )
    estimates = evaluation.fine_tuned.estimates
    return results, ", ".join(summary_figure(name, estimates[name]) for name in ("AP50", "AP"))


def summary_figure(name: str, estimate: Estimate) -> str:
    """A metric with its interval for the terminal: `AP50 0.4000 (95 % interval 0.2501 to 0.5688)`."""
    if estimate.value is None:
        return f"{name} none ({estimate.absent})"
    interval = "" if estimate.low is None else f" (95 % interval {estimate.low:.4f} to {estimate.high:.4f})"
    return f"{name} {estimate.value:.4f}{interval}"


def detect_with_both(
    head_only: StageDetector, fine_tuned: StageDetector, splits: Mapping[Split, Manifest], params: Params
) -> tuple[SplitDetections, SplitDetections, Suppression]:
    """Detections of both models in val and test, with the NMS chosen for the fine-tuned one, which is exported.

    Where fine-tuning has changed no tensor, the models are one and their detections the same.
    """
    param, val, test = params.model.class_agnostic_nms, splits["val"], splits["test"]
    overlap = overlap_of_labels(param, (splits["train"], val), fine_tuned.nms_iou)
    settings = candidate_settings(param, overlap)
    val_detections = dict(zip(settings, fine_tuned.detect(val, settings), strict=True))
    suppression = choose_suppression(param, overlap, val, val_detections)
    chosen = (suppression.across_labels,)
    (test_detections,) = fine_tuned.detect(test, chosen)
    of_fine_tuned = SplitDetections(val_detections[suppression.across_labels], test_detections)
    if head_only.digest == fine_tuned.digest:
        return of_fine_tuned, of_fine_tuned, suppression
    (head_val,), (head_test,) = (head_only.detect(manifest, chosen) for manifest in (val, test))
    return SplitDetections(head_val, head_test), of_fine_tuned, suppression


def _count_boxes(manifest: Manifest) -> dict[str, int]:
    """Boxes by label, crowds left out."""
    boxes = Counter(annotation.category_id for annotation in manifest.annotations if not annotation.iscrowd)
    return {category.name: boxes[category.id] for category in manifest.categories}
