"""The evaluate stage of task `classify`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.base.errors import list_some
from headstart.base.manifest import Manifest, Split
from headstart.evaluation.classifier.predictions import StageClassifier, logits_of_both, source_bias
from headstart.evaluation.classifier.results import ClassifierTestSet, classifier_results
from headstart.evaluation.history import TRAINING_STAGES, read_histories
from headstart.evaluation.report_facts import collect_report_facts
from headstart.evaluation.slices import check_slices
from headstart.evaluation.writer import Results
from headstart.metrics.source_bias import LabelSources
from headstart.params.root import Params

if TYPE_CHECKING:
    from headstart.cross_validation.figures import CrossValidation


def evaluate_classifier(splits: Mapping[Split, Manifest], params: Params, root: Path) -> tuple[Results, str]:
    """Run both classifiers on val and test, and compute what the stage writes.

    Args:
        splits: the manifests of train, val and test.
        params: all of params.yaml.
        root: the repository root.

    Returns:
        what is written, and the test accuracy in one line.

    Raises:
        UserError: a file of an earlier stage is missing or unreadable.
    """
    check_slices(params.evaluate.slices, [image for manifest in splits.values() for image in manifest.images])
    head_only, fine_tuned = (StageClassifier.read(stage, root) for stage in TRAINING_STAGES)
    spec = fine_tuned.spec
    head_only_logits, fine_tuned_logits, features = logits_of_both(head_only, fine_tuned, splits, params, root)
    sources = source_bias(head_only.embed(params, root), splits, params)
    evaluation, results = classifier_results(
        ClassifierTestSet(root, splits["test"].images, spec.labels),
        head_only_logits,
        fine_tuned_logits,
        params=params.evaluate,
        seed=params.seed,
        histories=read_histories(root, "accuracy"),
        facts=collect_report_facts(
            params,
            spec,
            splits,
            root,
            counts={split: _count_pictures(manifest, spec.labels) for split, manifest in splits.items()},
            notes=confounding_notes(sources),
        ),
        sources=sources,
        cross_validation=_cross_validate(splits, params, root),
        features=features,
    )
    accuracy = evaluation.fine_tuned.accuracy
    return results, f"accuracy {accuracy.value:.4f} (95 % interval {accuracy.low:.4f} to {accuracy.high:.4f})"


def _cross_validate(splits: Mapping[Split, Manifest], params: Params, root: Path) -> "CrossValidation | None":
    if not params.evaluate.folds:
        return None
    from headstart.cross_validation.cross_validate import cross_validate

    return cross_validate(splits, params, root)


def _count_pictures(manifest: Manifest, labels: Sequence[str]) -> dict[str, int]:
    return {label: sum(image.label == label for image in manifest.images) for label in labels}


def confounding_notes(sources: Sequence[LabelSources]) -> list[str]:
    """A note for the report where a label's pictures, and no other label's, come from one source."""
    confounded = [f"“{label.label}” only from {next(iter(label.sources))}" for label in sources if label.confounded]
    if not confounded:
        return []
    return [
        f"Label and source coincide: {list_some(confounded, 3)}. A model that recognises camera or style instead "
        "of the label would predict the same; no metric here can separate the two."
    ]
