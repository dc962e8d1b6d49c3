"""What became of every box at the threshold: a hit, a wrong label, a false alarm or a miss."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask

from headstart.calibration import Floats, Ints
from headstart.coco import Manifest
from headstart.detections import Detection
from headstart.matches import IOUS, Matches

BACKGROUND = "background"


@dataclass(frozen=True)
class Outcomes:
    """Boxes found are named by their index, boxes that are there by their annotation's id.

    Attributes:
        hits: what was found, and what it is; of one label, at IoU 0.5 or more.
        mislabelled: the same for boxes of two different labels.
        false_alarms: found, and nothing free is there.
        misses: there, and not found.
    """

    hits: tuple[tuple[int, int], ...]
    mislabelled: tuple[tuple[int, int], ...]
    false_alarms: tuple[int, ...]
    misses: tuple[int, ...]


def outcomes(manifest: Manifest, found: Sequence[Detection], matches: Matches, threshold: float) -> Outcomes:
    """Hits are those of COCO's matching, so they agree with the figures.

    What that leaves is matched again whatever its label, surest first, each to the free box with the highest IoU of at
    least 0.5. What lies in a crowd of its class is no outcome, and a crowd cannot be missed.
    """
    hits, rest = [], []
    for one in matches.classes:
        for index, truth, right, ignored in zip(one.found, one.truth, one.matched[0], one.ignored[0], strict=True):
            if found[index]["score"] < threshold or ignored:
                continue
            if right:
                hits.append((int(index), int(truth)))
            else:
                rest.append(int(index))
    seen = {truth for _, truth in hits}
    free: dict[int, dict[int, list[float]]] = defaultdict(dict)
    for annotation in manifest.annotations:
        if not annotation.iscrowd and annotation.id not in seen:
            free[annotation.image_id][annotation.id] = list(annotation.bbox)
    mislabelled, false_alarms = [], []
    for index in sorted(rest, key=lambda i: -found[i]["score"]):
        here = free[found[index]["image_id"]]
        overlaps = _ious(found[index], list(here.values()))
        if len(overlaps) and overlaps.max() >= IOUS[0]:
            truth = list(here)[int(overlaps.argmax())]
            del here[truth]
            mislabelled.append((index, truth))
        else:
            false_alarms.append(index)
    misses = [number for boxes in free.values() for number in boxes]
    return Outcomes(tuple(hits), tuple(mislabelled), tuple(false_alarms), tuple(sorted(misses)))


def _ious(one: Detection, boxes: list[list[float]]) -> Floats:
    found: Floats = np.asarray(mask.iou([list(one["bbox"])], boxes, [0] * len(boxes)) if boxes else []).reshape(-1)
    return found


def pairs(manifest: Manifest, found: Sequence[Detection], seen: Outcomes) -> list[tuple[int, int]]:
    """(what it is, what was said) of every outcome, as class numbers from 0; the last number is the background."""
    number = {c.id: n for n, c in enumerate(sorted(manifest.categories, key=lambda c: c.id))}
    is_ = {a.id: number[a.category_id] for a in manifest.annotations}
    said = [number[one["category_id"]] for one in found]
    background = len(number)
    return [
        *((is_[truth], said[index]) for index, truth in (*seen.hits, *seen.mislabelled)),
        *((background, said[index]) for index in seen.false_alarms),
        *((is_[truth], background) for truth in seen.misses),
    ]


def confusion(found: Sequence[tuple[int, int]], classes: int) -> Ints:
    """Counts by what it is (rows) and what was said (columns); the last row and column are the background."""
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    np.add.at(counts, tuple(np.array(found, np.int64).reshape(-1, 2).T), 1)
    return counts
