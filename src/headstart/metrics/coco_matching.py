"""Detections matched with ground truth boxes: pycocotools' COCOeval, run once, its matches as arrays.

Metrics, bootstrap intervals, threshold, confusion matrix and gallery are all computed from these matches.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.base.arrays import Bools, Floats, Ints
from headstart.base.detections import Detection, check_detections
from headstart.base.manifest import Manifest
from headstart.base.units import unit_numbers

if TYPE_CHECKING:
    from pycocotools.coco import COCO


IOU_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())  # 0.5 is the first, 0.75 the sixth
SIZES = ("small", "medium", "large")  # pycocotools' ranges of area after the first, which is "all"


@dataclass(frozen=True)
class ClassMatches:
    """The d detections of one class in all n pictures, by falling score, at the 10 IoU thresholds.

    Attributes:
        image_index: index of the picture in the manifest, (d,).
        detection_index: index of the detection in the sequence that was matched, (d,).
        score: falling, (d,).
        matched: whether it matches a ground truth box, (10, d).
        ignored: whether it counts neither as true nor as false positive, since it lies in a crowd, (10, d).
        annotation_id: id of the annotation that it matches at IoU 0.5, (d,); 0: none.
        ground_truth_counts: ground truth boxes in each picture, without crowds, (n,).
    """

    image_index: Ints
    detection_index: Ints
    score: Floats
    matched: Bools
    ignored: Bools
    annotation_id: Ints
    ground_truth_counts: Ints

    @property
    def true_positive(self) -> Bools:
        """Detections that are true positives at each IoU threshold, (10, d)."""
        return self.matched & ~self.ignored


@dataclass(frozen=True)
class DetectionMatches:
    """The matches of all classes, in the order of their ids, and pycocotools' own results.

    Attributes:
        classes: matches by class.
        stats: pycocotools' twelve metrics; -1 where there is no ground truth box.
        precision: at the recalls 0, 0.01 … 1, (10, 101, classes); -1 for a class without ground truth boxes.
        units: the number of each picture's unit, (n,); by default each picture is one.
        sizes: matches by class, where ground truth boxes of other sizes are ignored, by the names of SIZES.
    """

    classes: tuple[ClassMatches, ...]
    stats: Floats
    precision: Floats
    units: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    sizes: Mapping[str, tuple[ClassMatches, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.units):
            object.__setattr__(self, "units", np.arange(len(self.classes[0].ground_truth_counts)))


def match_detections(manifest: Manifest, detections: Sequence[Detection]) -> DetectionMatches:
    """Match as COCO does: by falling score, each detection to the unmatched box of its class with the highest IoU.

    A detection that lies in a crowd (`iscrowd`) is neither a true nor a false positive. At most 100 of a class count in
    a picture. The units are the manifest's. Source: pycocotools' COCOeval, which runs here.
    """
    from pycocotools.cocoeval import COCOeval

    check_detections(detections, manifest)
    with contextlib.redirect_stdout(io.StringIO()):  # COCOeval prints
        coco_eval = COCOeval(_ground_truth_coco(manifest), _detections_coco(manifest, detections), "bbox")
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    pictures, areas = len(manifest.images), len(coco_eval.params.areaRng)
    image_index = {image.id: number for number, image in enumerate(manifest.images)}
    by_area: list[list[ClassMatches]] = [[] for _ in range(areas)]
    for number in range(len(coco_eval.params.catIds) * areas):
        results = coco_eval.evalImgs[number * pictures : (number + 1) * pictures]
        by_area[number % areas].append(_class_matches(results, image_index))
    return DetectionMatches(
        tuple(by_area[0]),
        np.asarray(coco_eval.stats),
        coco_eval.eval["precision"][:, :, :, 0, -1],
        unit_numbers(manifest.images),
        {size: tuple(classes) for size, classes in zip(SIZES, by_area[1:], strict=True)},
    )


def _ground_truth_coco(manifest: Manifest) -> "COCO":
    annotations = [a.model_dump() | {"bbox": list(a.bbox)} for a in manifest.annotations]
    assert all(a["id"] > 0 for a in annotations), "pycocotools takes the id 0 for no match"
    return _build_coco(manifest, annotations)


def _detections_coco(manifest: Manifest, detections: Sequence[Detection]) -> "COCO":
    annotations = [
        {
            **detection,
            "bbox": list(detection["bbox"]),
            "id": number,
            "area": detection["bbox"][2] * detection["bbox"][3],
            "iscrowd": 0,
        }
        for number, detection in enumerate(detections, start=1)
    ]
    return _build_coco(manifest, annotations)


def _build_coco(manifest: Manifest, annotations: list[dict[str, Any]]) -> "COCO":
    """A COCO index made in memory; `loadRes` would fail on an empty list of detections."""
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {
        "images": [{"id": image.id} for image in manifest.images],
        "annotations": annotations,
        "categories": [category.model_dump() for category in manifest.categories],
    }
    coco.createIndex()
    return coco


def _class_matches(image_results: Sequence[Any], image_index: dict[int, int]) -> ClassMatches:
    """COCOeval's results of one class; None for a picture with neither boxes nor detections of it."""
    results = [result for result in image_results if result is not None]
    ground_truth_counts = np.zeros(len(image_index), np.int64)
    for result in results:
        ground_truth_counts[image_index[result["image_id"]]] = np.count_nonzero(np.asarray(result["gtIgnore"]) == 0)

    def concatenated(key: str, rows: int) -> NDArray[np.float64]:
        parts = [np.asarray(result[key], np.float64).reshape(rows, -1) for result in results]
        return np.concatenate([np.empty((rows, 0)), *parts], axis=1)

    score = concatenated("dtScores", 1)[0]
    order = np.argsort(-score, kind="mergesort")  # as pycocotools sorts
    matched = concatenated("dtMatches", len(IOU_THRESHOLDS))[:, order]
    pictures = [image_index[result["image_id"]] for result in results for _ in result["dtIds"]]
    return ClassMatches(
        image_index=np.array(pictures, np.int64)[order],
        detection_index=concatenated("dtIds", 1)[0, order].astype(np.int64) - 1,
        score=score[order],
        matched=matched > 0,
        ignored=concatenated("dtIgnore", len(IOU_THRESHOLDS))[:, order] > 0,
        annotation_id=matched[0].astype(np.int64),
        ground_truth_counts=ground_truth_counts,
    )
