"""A detector's metrics on the test pictures, each with its interval. Matches in, numbers out; no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.base.arrays import Floats
from headstart.metrics.average_precision import AP_ROWS, average_precision, mean_ap
from headstart.metrics.coco_matching import DetectionMatches
from headstart.metrics.detection_figures import (
    AT_THRESHOLD,
    COCO_STATS,
    LABEL_FIGURES,
    Figures,
    figure_support,
    label_support,
    weighted_figures,
)
from headstart.metrics.estimate import Estimate
from headstart.metrics.half_samples import Support, half_sample_difference, half_sample_interval, half_samples
from headstart.metrics.intervals import SAME_MODEL
from headstart.metrics.threshold import OperatingPoint, Threshold, operating_point


@dataclass(frozen=True)
class ClassAP:
    """Average precision of one class, over the IoU thresholds and at 0.5."""

    ap: Estimate
    ap50: Estimate
    boxes: int


@dataclass(frozen=True)
class DetectorMetrics:
    """All metrics of one model on the test pictures.

    Attributes:
        pictures: number of test pictures.
        units: of so many units (see base/units.py).
        boxes: ground truth boxes in them, without crowds.
        crowds: crowd annotations in them.
        estimates: by the names of COCO_STATS.
        threshold: chosen on val.
        at_threshold: precision, recall and f1 at that threshold on test, over all labels, at IoU 0.5.
        per_class: average precision by label.
    """

    pictures: int
    units: int
    boxes: int
    crowds: int
    estimates: dict[str, Estimate]
    threshold: Threshold
    at_threshold: dict[str, Estimate]
    per_class: dict[str, ClassAP]


@dataclass(frozen=True)
class DetectorEvaluation:
    """Both models on the same pictures; `difference` is fine-tuned minus head-only, in AP."""

    head_only: DetectorMetrics
    fine_tuned: DetectorMetrics
    difference: Estimate


def evaluate_detectors(
    head_only: tuple[DetectionMatches, Threshold],
    fine_tuned: tuple[DetectionMatches, Threshold],
    names: Sequence[str],
    *,
    crowds: int,
    resamples: int,
    seed: int,
) -> DetectorEvaluation:
    """Metrics of both models and their paired difference in AP, with intervals by half-sampling of units.

    Both models are evaluated on the same halves of the test set. A class without a box in a half is left out of its
    mean, as COCO does.

    Args:
        head_only: the model whose head alone was trained: its matches on test, its threshold from val.
        fine_tuned: the same of the fine-tuned model.
        names: labels in the order of the matches' classes.
        crowds: crowd annotations in the test pictures.
        resamples: number of halves.
        seed: of the halves.
    """
    models = (head_only, fine_tuned)
    halves = _figures_of_halves(models, resamples, seed)
    head, tuned = (
        _compute_metrics(matches, threshold, own, names, crowds)
        for (matches, threshold), own in zip(models, halves, strict=True)
    )
    ap_of_halves = (halves[0].overall["AP"], halves[1].overall["AP"])
    return DetectorEvaluation(head, tuned, _difference((head_only[0], fine_tuned[0]), "AP", ap_of_halves))


def ap_interval(matches: DetectionMatches, name: str = "AP", *, resamples: int = 1000, seed: int = 0) -> Estimate:
    """AP, AP50 or AP75 of one model with its interval.

    Args:
        matches: of the test pictures.
        name: which of the three.
        resamples: number of halves.
        seed: of the halves.
    """
    return _estimate(_value(matches, name), _ap_of_halves((matches,), name, resamples, seed)[0], matches, name)


def ap_difference(
    first: DetectionMatches, second: DetectionMatches, name: str = "AP", *, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """The paired difference of two models on the same pictures, second minus first; arguments as of `ap_interval`."""
    models = (first, second)
    samples = _ap_of_halves(models, name, resamples, seed)
    return _difference(models, name, (samples[0], samples[1]))


def _ap_of_halves(models: Sequence[DetectionMatches], name: str, resamples: int, seed: int) -> list[Floats]:
    blocks: list[list[Floats]] = [[] for _ in models]
    for weights in half_samples(models[0].units, resamples, seed, _width(models)):
        for matches, own in zip(models, blocks, strict=True):
            own.append(mean_ap(np.stack([average_precision(one, weights, AP_ROWS[name]) for one in matches.classes])))
    return [np.concatenate(own) for own in blocks]


def _figures_of_halves(
    models: Sequence[tuple[DetectionMatches, Threshold]], resamples: int, seed: int
) -> list[Figures]:
    """All figures of each model on the same halves; where both are one model they are computed once."""
    if len(models) > 1 and models[0][1] == models[1][1] and _is_same_model(models[0][0], models[1][0]):
        return _figures_of_halves(models[:1], resamples, seed) * 2
    blocks: list[list[Figures]] = [[] for _ in models]
    matches = [own for own, _ in models]
    for weights in half_samples(matches[0].units, resamples, seed, _width(matches)):
        for (own, threshold), figures in zip(models, blocks, strict=True):
            figures.append(weighted_figures(own, threshold.value, weights))
    return [
        Figures(
            {name: np.concatenate([part.overall[name] for part in own]) for name in (*COCO_STATS, *AT_THRESHOLD)},
            {name: np.concatenate([part.by_label[name] for part in own], axis=1) for name in LABEL_FIGURES},
        )
        for own in blocks
    ]


def _width(models: Sequence[DetectionMatches]) -> int:
    return max(len(own.score) for matches in models for own in matches.classes)


def _compute_metrics(
    matches: DetectionMatches, threshold: Threshold, halves: Figures, names: Sequence[str], crowds: int
) -> DetectorMetrics:
    boxes = [int(own.ground_truth_counts.sum()) for own in matches.classes]
    return DetectorMetrics(
        pictures=len(matches.units),
        units=len(np.unique(matches.units)),
        boxes=sum(boxes),
        crowds=crowds,
        estimates={name: _estimate(_value(matches, name), halves.overall[name], matches, name) for name in COCO_STATS},
        threshold=threshold,
        at_threshold=_at_threshold(matches, threshold, halves.overall),
        per_class={
            name: _class_ap(matches, k, halves, count) for k, (name, count) in enumerate(zip(names, boxes, strict=True))
        },
    )


def _value(matches: DetectionMatches, name: str) -> float:
    """Pycocotools' own; -1 where it is undefined."""
    return float(matches.stats[COCO_STATS.index(name)])


def _estimate(value: float, halves: Floats, matches: DetectionMatches, name: str) -> Estimate:
    support = figure_support(matches, name)
    if value < 0 or support is None:
        size = name.partition("_")[2] if name.startswith("AP_") else ""
        return Estimate(None, absent=f"no {size} box in the test pictures" if size else "no box in the test pictures")
    return half_sample_interval(value, halves, support)


def _at_threshold(matches: DetectionMatches, threshold: Threshold, halves: Mapping[str, Floats]) -> dict[str, Estimate]:
    point: OperatingPoint = operating_point(matches.classes, threshold.value)
    absent = {
        "precision": "no detection at the threshold",
        "recall": "no box in the test pictures",
        "f1": "neither a box nor a detection",
    }
    estimates = {}
    for name in AT_THRESHOLD:
        value, support = getattr(point, name), figure_support(matches, name, threshold.value)
        if value is None or support is None:
            estimates[name] = Estimate(None, absent=absent[name])
        else:
            estimates[name] = half_sample_interval(value, halves[name], support)
    return estimates


def _class_ap(matches: DetectionMatches, number: int, halves: Figures, boxes: int) -> ClassAP:
    support: Support | None = label_support(matches, number)
    if support is None:
        absent = Estimate(None, absent="no box in the test pictures")
        return ClassAP(absent, absent, 0)
    precision = matches.precision[:, :, number]
    return ClassAP(
        half_sample_interval(float(precision.mean()), halves.by_label["AP"][number], support),
        half_sample_interval(float(precision[0].mean()), halves.by_label["AP50"][number], support),
        boxes,
    )


def _difference(
    models: tuple[DetectionMatches, DetectionMatches], name: str, halves: tuple[Floats, Floats]
) -> Estimate:
    first, second = (_value(matches, name) for matches in models)
    support = figure_support(models[0], name)
    if support is None:
        return Estimate(None, absent="no box in the test pictures")
    if _is_same_model(*models):
        return SAME_MODEL
    return half_sample_difference(second - first, halves[1] - halves[0], support)


def _is_same_model(one: DetectionMatches, other: DetectionMatches) -> bool:
    fields = ("image_index", "score", "matched", "ignored")
    return all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for first, second in zip(one.classes, other.classes, strict=True)
        for name in fields
    )
