"""The evaluate stage of task `detect`."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from headstart.base.manifest import Manifest, Split
from headstart.evaluation.detector.predictions import predict_detections
from headstart.evaluation.detector.results import DetectorSplits, detector_results
from headstart.evaluation.history import TRAINING_STAGES, read_histories
from headstart.evaluation.report_facts import collect_report_facts
from headstart.evaluation.writer import Results
from headstart.models.file import read_model_file
from headstart.params.root import Params


def evaluate_detector(splits: Mapping[Split, Manifest], params: Params, root: Path) -> tuple[Results, str]:
    """Run both detectors on val and test, and compute what the stage writes.

    Args:
        splits: the manifests of train, val and test.
        params: all of params.yaml.
        root: the repository root.

    Returns:
        what is written, and test AP50 and AP in one line.

    Raises:
        UserError: a file of an earlier stage is missing or unreadable.
    """
    _, spec = read_model_file(root / "stages/fine-tune/model.safetensors")
    head_only, fine_tuned = (predict_detections(stage, splits, params, root) for stage in TRAINING_STAGES)
    evaluation, results = detector_results(
        DetectorSplits(root, splits["val"], splits["test"]),
        head_only,
        fine_tuned,
        params=params.evaluate,
        seed=params.seed,
        histories=read_histories(root, "AP50"),
        facts=collect_report_facts(
            params,
            spec,
            splits,
            root,
            counts={split: _count_boxes(manifest) for split, manifest in splits.items()},
        ),
    )
    values = {name: evaluation.fine_tuned.estimates[name].value for name in ("AP50", "AP")}
    return results, ", ".join(f"{name} {'none' if value is None else f'{value:.4f}'}" for name, value in values.items())


def _count_boxes(manifest: Manifest) -> dict[str, int]:
    """Boxes by label, crowds left out."""
    boxes = Counter(annotation.category_id for annotation in manifest.annotations if not annotation.iscrowd)
    return {category.name: boxes[category.id] for category in manifest.categories}
