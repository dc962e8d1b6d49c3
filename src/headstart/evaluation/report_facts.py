"""What the report states besides metrics: settings, counts, sources, licences, duplicates, frozen blocks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.base.files import read_json
from headstart.base.kept_head import kept_head_sentence
from headstart.base.manifest import Manifest, Split, count_licenses, count_sources
from headstart.engine.input_spec import format_shape
from headstart.evaluation.report_tables import Table
from headstart.models.file import ModelSpec
from headstart.models.weights import UNTRAINED
from headstart.params.root import Params


@dataclass(frozen=True)
class ReportFacts:
    """What earlier stages have found or done.

    Attributes:
        title: of the page.
        settings: how the model was trained, by name.
        counts: by split and label: pictures, or boxes of a detector.
        sources: pictures by source.
        licenses: pictures by licence.
        duplicates: pictures by kind of duplicate.
        frozen: block by block, whether it had trained in the epoch that was kept.
        notes: warnings, such as test pictures that the backbone may have been pretrained on.
        kept_head: a sentence, where no epoch of fine-tuning beat the head-only model, which was kept; else empty.
        vain_lr: the learning rate of fine-tuning in that case; else 0.
    """

    title: str
    settings: Mapping[str, str]
    counts: Mapping[Split, Mapping[str, int]]
    sources: Mapping[str, int]
    licenses: Mapping[str, int]
    duplicates: Mapping[str, int]
    frozen: Table
    notes: tuple[str, ...] = ()
    kept_head: str = ""
    vain_lr: float = 0.0


def collect_report_facts(
    params: Params,
    spec: ModelSpec,
    splits: Mapping[Split, Manifest],
    root: Path,
    *,
    counts: Mapping[Split, Mapping[str, int]],
    notes: Sequence[str] = (),
) -> ReportFacts:
    """Read the facts from the earlier stages' files.

    Args:
        params: all of params.yaml.
        spec: of the fine-tuned network.
        splits: the manifests.
        root: the repository root.
        counts: as in ReportFacts.
        notes: the task's own; that of pictures the backbone may have seen comes before them.
    """
    split_metrics = read_json(root / "stages/split/metrics.json")
    weights = read_json(root / "stages/weights/weights.json")
    blocks = read_json(root / "stages/fine-tune/blocks.json")
    fine_tuned = read_json(root / "stages/fine-tune/metrics.json")
    best_epoch = fine_tuned["best_epoch"]
    images = [image for manifest in splits.values() for image in manifest.images]
    return ReportFacts(
        title=" or ".join(spec.labels) if len(spec.labels) <= 3 else f"{len(spec.labels)} labels",
        settings=_settings(params, spec, weights, blocks),
        counts=counts,
        sources=dict(count_sources(images)),
        licenses=dict(count_licenses(images)),
        duplicates={
            "identical to another picture": split_metrics["identical_pictures"],
            "near-duplicate pairs, each kept in one split": split_metrics["near_duplicate_pairs"],
            "left out, since a later split has the same picture": split_metrics["dropped"],
        },
        frozen=Table(
            caption="Frozen blocks",
            header=("block", "name", "parameters", "in the epoch that was kept"),
            rows=tuple((row["block"], row["name"], row["parameters"], row["state"]) for row in blocks),
        ),
        notes=(
            *_pretraining_overlap_notes(splits, weights["source"]),
            *(leak["sentence"] for leak in split_metrics.get("leaks", []) if leak["sentence"]),
            *notes,
        ),
        kept_head=kept_head_sentence(params.fine_tune.lr, fine_tuned) if best_epoch == 0 else "",
        vain_lr=params.fine_tune.lr if best_epoch == 0 else 0.0,
    )


def _settings(
    params: Params, spec: ModelSpec, weights: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    of_backbone = [row for row in blocks if row["block"] != ""]  # head and feature pyramid have no number
    frozen = sum(row["state"] == "frozen" for row in of_backbone)
    revision = f"revision {weights['revision']}, " if "revision" in weights else ""  # weights from a hub have one
    return {
        "network": spec.description(),
        "pretrained weights": f"{weights['source']}, {revision}licence {weights['license']}, "
        f"{weights['parameters']:,} parameters",
        "picture size": f"{format_shape(spec.input.shape)} ({spec.input.resize})",
        "frozen": f"{frozen} of {len(of_backbone)} blocks are as pretrained in the exported model",
        "augmented copies": f"{params.augment.copies} of each training picture",
        "train-head": _head_training(params, spec),
        "fine-tune": f"{params.fine_tune.length()}, learning rate {params.fine_tune.lr:g} "
        f"(backbone times {params.fine_tune.backbone_lr_scale:g}), layer decay {params.fine_tune.layer_decay:g}",
        "seed": str(params.seed),
    }


def _head_training(params: Params, spec: ModelSpec) -> str:
    section = params.train_head
    if spec.task != "classify" or not spec.head.is_fitted:
        return f"{section.length()}, learning rate {section.lr:g}"
    decay = "chosen by cross-validation" if section.weight_decay == "auto" else f"{section.weight_decay:g}"
    return f"{spec.head.kind} head, solved to its optimum; weight decay {decay}"


def _pretraining_overlap_notes(splits: Mapping[Split, Manifest], weights_source: str) -> list[str]:
    dogs = {
        split: sum(image.source == "stanford_dogs" for image in manifest.images) for split, manifest in splits.items()
    }
    if weights_source == UNTRAINED or not any(dogs.values()):
        return []
    return [
        f"{sum(dogs.values()):,} of the pictures, {dogs['test']:,} of them in the test set, are of Stanford Dogs, and "
        f"these are part of ImageNet. A backbone pretrained on it (here: {weights_source}) may have seen them and "
        "their breeds: on them the metrics are optimistic."
    ]
