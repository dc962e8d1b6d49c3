"""Outcome of every box at the threshold: correct, wrong label, second box on an object, nothing there, or missed."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask

from headstart.base.arrays import Ints
from headstart.base.detections import Detection
from headstart.base.manifest import Manifest
from headstart.metrics.coco_matching import IOU_THRESHOLDS, DetectionMatches

_Boxes = dict[int, list[float]]  # annotation id -> COCO box


@dataclass(frozen=True)
class Outcomes:
    """Detections by their index, ground-truth boxes by their annotation's id.

    Attributes:
        true_positives: (detection, ground truth) of one label, IoU 0.5 or more.
        misclassified: the same of two different labels.
        duplicates: (detection, ground truth), a further box of any label on one that a detection has already.
        false_positives: detections on background.
        false_negatives: missed ground-truth boxes.
    """

    true_positives: tuple[tuple[int, int], ...]
    misclassified: tuple[tuple[int, int], ...]
    duplicates: tuple[tuple[int, int], ...]
    false_positives: tuple[int, ...]
    false_negatives: tuple[int, ...]

    def counts(self) -> dict[str, int]:
        """How many boxes have each outcome; all but the last are detections."""
        return {
            "correct": len(self.true_positives),
            "wrong_label": len(self.misclassified),
            "second_box": len(self.duplicates),
            "nothing_there": len(self.false_positives),
            "missed": len(self.false_negatives),
        }


def find_outcomes(
    manifest: Manifest, detections: Sequence[Detection], matches: DetectionMatches, threshold: float
) -> Outcomes:
    """Assign an outcome to every box.

    True positives are those of COCO's matching, so they agree with the metrics. The other detections are matched again
    whatever their label, the highest score first, each to the unmatched box with the highest IoU of at least 0.5; where
    there is none, the matched box with the highest IoU of at least 0.5 makes it a duplicate. A detection in a crowd of
    its class has no outcome, and a crowd cannot be missed.

    Args:
        manifest: the ground truth.
        detections: of one model, in the manifest's pictures.
        matches: COCO's matching of both.
        threshold: detections with lower scores are left out.
    """
    true_positives, unmatched = [], []
    for one in matches.classes:
        for index, truth, matched, ignored in zip(
            one.detection_index, one.annotation_id, one.matched[0], one.ignored[0], strict=True
        ):
            if detections[index]["score"] < threshold or ignored:
                continue
            if matched:
                true_positives.append((int(index), int(truth)))
            else:
                unmatched.append(int(index))
    found = {truth for _, truth in true_positives}
    free: dict[int, _Boxes] = defaultdict(dict)
    taken: dict[int, _Boxes] = defaultdict(dict)
    for annotation in manifest.annotations:
        if not annotation.iscrowd:
            boxes = taken if annotation.id in found else free
            boxes[annotation.image_id][annotation.id] = list(annotation.bbox)
    misclassified, duplicates, false_positives = [], [], []
    for index in sorted(unmatched, key=lambda i: -detections[i]["score"]):
        image_id = detections[index]["image_id"]
        if (truth := _best_overlap(detections[index], free[image_id])) is not None:
            taken[image_id][truth] = free[image_id].pop(truth)
            misclassified.append((index, truth))
        elif (truth := _best_overlap(detections[index], taken[image_id])) is not None:
            duplicates.append((index, truth))
        else:
            false_positives.append(index)
    return Outcomes(
        tuple(true_positives),
        tuple(misclassified),
        tuple(duplicates),
        tuple(false_positives),
        false_negatives=tuple(sorted(annotation_id for of_image in free.values() for annotation_id in of_image)),
    )


def _best_overlap(detection: Detection, boxes: _Boxes) -> int | None:
    """The id of the box with the highest IoU of at least 0.5; None: there is none."""
    if not boxes:
        return None
    iou = np.asarray(mask.iou([list(detection["bbox"])], list(boxes.values()), [0] * len(boxes))).reshape(-1)
    return list(boxes)[int(iou.argmax())] if iou.max() >= IOU_THRESHOLDS[0] else None


def label_pairs(manifest: Manifest, detections: Sequence[Detection], outcomes: Outcomes) -> list[tuple[int, int]]:
    """(actual, predicted) class of every outcome, as numbers from 0; the number after the last is the background.

    Duplicates are left out: a pair stands for one object, or for one detection where nothing is.
    """
    number = manifest.label_numbers()
    actual = {annotation.id: number[annotation.category_id] for annotation in manifest.annotations}
    predicted = [number[detection["category_id"]] for detection in detections]
    background = len(number)
    return [
        *((actual[truth], predicted[index]) for index, truth in (*outcomes.true_positives, *outcomes.misclassified)),
        *((background, predicted[index]) for index in outcomes.false_positives),
        *((actual[truth], background) for truth in outcomes.false_negatives),
    ]


def count_pairs(pairs: Sequence[tuple[int, int]], classes: int) -> Ints:
    """Confusion matrix, actual by predicted, (classes + 1, classes + 1): the last row and column are the background."""
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    np.add.at(counts, tuple(np.array(pairs, np.int64).reshape(-1, 2).T), 1)
    return counts
