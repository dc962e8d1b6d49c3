"""The figures of a detector's exam, each with its interval. Matches in, numbers out; no disk, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.bootstrap import draws
from headstart.calibration import Floats
from headstart.matches import IOUS, ClassMatches, Matches
from headstart.scores import Estimate, estimate
from headstart.threshold import At, Threshold, at

# The order of pycocotools' twelve figures, of which recall by size is left out.
STATS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR_1", "AR_10", "AR_100")
WITH_INTERVAL = {"AP": slice(None), "AP50": slice(0, 1), "AP75": slice(5, 6)}  # which of the ten IoUs
_RECALLS = np.linspace(0, 1, 101)  # where COCO reads precision off
_TINY = np.spacing(1)


@dataclass(frozen=True)
class ClassAP:
    """One class: None where there is no box of it to find."""

    ap: float | None
    ap50: float | None
    boxes: int


@dataclass(frozen=True)
class BoxScores:
    """Everything said about one model on the test pictures.

    Attributes:
        figures: by the names of `STATS`; those of `WITH_INTERVAL` have their interval.
        threshold: chosen on val.
        at_threshold: what that gives on test.
        per_class: by label.
    """

    pictures: int
    boxes: int
    crowds: int
    figures: dict[str, Estimate]
    threshold: Threshold
    at_threshold: At
    per_class: dict[str, ClassAP]


@dataclass(frozen=True)
class BoxEvaluation:
    """Both models on the same pictures; `difference` is fine-tuned minus head-only, of AP."""

    head_only: BoxScores
    fine_tuned: BoxScores
    difference: Estimate


def evaluate(
    head_only: tuple[Matches, Threshold],
    fine_tuned: tuple[Matches, Threshold],
    names: Sequence[str],
    *,
    crowds: int,
    resamples: int,
    seed: int,
) -> BoxEvaluation:
    """Score both models (their matches on test, their threshold from val) and the difference between them.

    Intervals are percentile bootstrap intervals over pictures (Efron 1979): the test pictures are drawn anew
    `resamples` times with replacement, the middle 95 % of what the figure then is, is the interval. Both models see the
    same resamples. A class without a box in a resample is left out of its mean, as COCO does.
    """
    pictures = len(fine_tuned[0].classes[0].boxes)
    models = [head_only[0], fine_tuned[0]]
    width = max(len(one.score) for model in models for one in model.classes)
    samples: list[dict[str, list[Floats]]] = [{name: [] for name in WITH_INTERVAL} for _ in models]
    for weights in draws(pictures, resamples, seed, width):
        for model, own in zip(models, samples, strict=True):
            for name, values in resampled(model, weights).items():
                own[name].append(values)
    joined = [{name: np.concatenate(parts) for name, parts in own.items()} for own in samples]
    head, tuned = (
        _score(*model, own, names, crowds) for model, own in zip((head_only, fine_tuned), joined, strict=True)
    )
    return BoxEvaluation(head, tuned, _difference((head, tuned), joined))


def resampled(matches: Matches, weights: Floats) -> dict[str, Floats]:
    """AP, AP50 and AP75 under each row of weights (b, n): how often the resample drew each picture.

    What pycocotools gives for a data set in which each picture stands so often, without matching anew. NaN for a
    resample without any box.
    """
    by_class = np.stack([average_precision(one, weights) for one in matches.classes])  # (classes, 10, b)
    there = ~np.isnan(by_class)
    with np.errstate(invalid="ignore"):
        return {
            name: np.where(there[:, at_], by_class[:, at_], 0).sum((0, 1)) / there[:, at_].sum((0, 1))
            for name, at_ in WITH_INTERVAL.items()
        }


def average_precision(one: ClassMatches, weights: Floats) -> Floats:
    """AP of a class at each IoU under each row of weights, (10, b); NaN for rows without a box of it."""
    drawn = weights[:, one.picture]
    boxes = weights @ one.boxes
    found = np.zeros((len(IOUS), len(weights)))
    counted: dict[bytes, Floats] = {}
    for number, (matched, ignored) in enumerate(zip(one.matched, one.ignored, strict=True)):
        # Precision rises only where something right is found: at those places alone it is looked at. How much was
        # found up to a place depends on the IoU only through what is ignored, mostly nothing.
        if (key := ignored.tobytes()) not in counted:
            counted[key] = np.cumsum(drawn * ~ignored, axis=1)
        right = np.flatnonzero(matched & ~ignored)
        hits = np.cumsum(drawn[:, right], axis=1)
        precision = hits / (counted[key][:, right] + _TINY)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        found[number] = _mean_precision(hits, precision, boxes)
    return np.where(boxes > 0, found, np.nan)


def _mean_precision(hits: Floats, precision: Floats, boxes: Floats) -> Floats:
    """Mean over the 101 recalls of the precision where each is first reached, 0 where it never is, (b,)."""
    means = np.zeros(len(hits))
    for row in np.flatnonzero(boxes):
        # Compared as pycocotools does, recall with recall: 0.29 * 100 is more than 29.
        reached = np.searchsorted(hits[row] / boxes[row], _RECALLS, side="left")
        means[row] = precision[row, reached[reached < hits.shape[1]]].sum() / len(_RECALLS)
    return means


def _score(
    matches: Matches, threshold: Threshold, samples: dict[str, Floats], names: Sequence[str], crowds: int
) -> BoxScores:
    figures = {}
    for name, value in zip(STATS, matches.stats.tolist(), strict=False):
        if value < 0:
            figures[name] = Estimate(None, absent=_nothing(name))
        elif name in samples:
            figures[name] = estimate(value, samples[name])
        else:
            figures[name] = Estimate(value)
    boxes = [int(one.boxes.sum()) for one in matches.classes]
    precision = matches.precision.mean(axis=1)  # (10, classes)
    return BoxScores(
        pictures=len(matches.classes[0].boxes),
        boxes=sum(boxes),
        crowds=crowds,
        figures=figures,
        threshold=threshold,
        at_threshold=at(matches.classes, threshold.value),
        per_class={
            name: ClassAP(float(precision[:, k].mean()), float(precision[0, k]), count)
            if count
            else ClassAP(None, None, 0)
            for k, (name, count) in enumerate(zip(names, boxes, strict=True))
        },
    )


def _nothing(name: str) -> str:
    size = name.partition("_")[2] if name.startswith("AP_") else ""
    return f"no {size} box in the test pictures" if size else "no box in the test pictures"


def _difference(scored: Sequence[BoxScores], samples: Sequence[dict[str, Floats]]) -> Estimate:
    head, tuned = (one.figures["AP"] for one in scored)
    if head.value is None or tuned.value is None:
        return Estimate(None, absent=tuned.absent)
    return estimate(tuned.value - head.value, samples[1]["AP"] - samples[0]["AP"])
