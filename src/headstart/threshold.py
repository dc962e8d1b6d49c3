"""From which confidence on a detector's boxes are believed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.calibration import Floats
from headstart.matches import ClassMatches

UNKNOWN = 0.5  # where val tells nothing


@dataclass(frozen=True)
class At:
    """All classes together at one threshold and IoU 0.5: None where nothing was found, or nothing was there."""

    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Threshold:
    """A box counts from this confidence on; `f1` is what it gives on val, None where val has no box to find."""

    value: float
    f1: float | None


@dataclass(frozen=True)
class Sweep:
    """Precision, recall and F1 for every threshold at which they change, falling, (s,)."""

    confidence: Floats
    precision: Floats
    recall: Floats
    f1: Floats


def sweep(classes: Sequence[ClassMatches]) -> Sweep:
    """All classes and pictures in one pot (micro average), at IoU 0.5. Empty where nothing was found or is there."""
    score = np.concatenate([one.score for one in classes])
    right = np.concatenate([one.matched[0] & ~one.ignored[0] for one in classes])
    counts = np.concatenate([~one.ignored[0] for one in classes])
    boxes = sum(int(one.boxes.sum()) for one in classes)
    order = np.argsort(-score, kind="stable")
    score, hits, found = score[order], np.cumsum(right[order]), np.cumsum(counts[order])
    # Boxes of equal confidence come and go together: the last of them has the counts.
    last = np.append(score[1:] < score[:-1], True)[: len(score)] & (found > 0) & (boxes > 0)
    hits, found = hits[last], found[last]
    return Sweep(score[last], hits / found, hits / max(boxes, 1), 2 * hits / (found + boxes))


def choose(classes: Sequence[ClassMatches]) -> Threshold:
    """The threshold of the highest F1 at IoU 0.5 over all boxes of the val pictures; of equal ones the highest.

    It lies half way to the next lower confidence, so that rounding does not lose the box that decided.
    """
    seen = sweep(classes)
    if not len(seen.f1):
        return Threshold(UNKNOWN, None if not sum(one.boxes.sum() for one in classes) else 0.0)
    best = int(seen.f1.argmax())
    if seen.f1[best] == 0:
        return Threshold(UNKNOWN, 0.0)
    below = seen.confidence[best + 1] if best + 1 < len(seen.confidence) else 0.0
    return Threshold(round(float(seen.confidence[best] + below) / 2, 6), float(seen.f1[best]))


def at(classes: Sequence[ClassMatches], threshold: float) -> At:
    """Precision, recall and F1 of what lies at or above a threshold."""
    kept = [one.score >= threshold for one in classes]
    hits = sum(int((one.matched[0] & ~one.ignored[0] & k).sum()) for one, k in zip(classes, kept, strict=True))
    found = sum(int((~one.ignored[0] & k).sum()) for one, k in zip(classes, kept, strict=True))
    boxes = sum(int(one.boxes.sum()) for one in classes)
    return At(
        hits / found if found else None,
        hits / boxes if boxes else None,
        2 * hits / (found + boxes) if found + boxes else None,
    )
