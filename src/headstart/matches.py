"""Which boxes that were found are which boxes that are there: pycocotools' matching, done once, as arrays.

Figures, resamples, threshold, confusion matrix and gallery all rest on the same matches.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart import detections
from headstart.calibration import Floats, Ints
from headstart.coco import Manifest
from headstart.detections import Detection

if TYPE_CHECKING:
    from pycocotools.coco import COCO

Bools = NDArray[np.bool_]

IOUS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())  # 0.5 is the first, 0.75 the sixth


@dataclass(frozen=True)
class ClassMatches:
    """The boxes found of one class in all pictures, surest first; d of them, in n pictures, at the 10 IoUs.

    Attributes:
        picture: which picture, as an index into the manifest's, (d,).
        found: which of the boxes that were handed in, as an index, (d,).
        score: (d,), falling.
        matched: it is a box that is there, (10, d).
        ignored: it counts neither as right nor as wrong, since it lies in a crowd, (10, d).
        truth: id of the annotation that it is at IoU 0.5, (d,); 0: none.
        boxes: how many boxes there are to find in each picture, (n,); crowds are not.
    """

    picture: Ints
    found: Ints
    score: Floats
    matched: Bools
    ignored: Bools
    truth: Ints
    boxes: Ints


@dataclass(frozen=True)
class Matches:
    """All classes, in the order of their ids, and what pycocotools says of them.

    Attributes:
        classes: their matches.
        stats: pycocotools' twelve figures; -1 where there is nothing to find.
        precision: at 101 recalls 0, 0.01 … 1, (10, 101, classes); -1 for a class without boxes.
    """

    classes: tuple[ClassMatches, ...]
    stats: Floats
    precision: Floats


def match(manifest: Manifest, found: Sequence[Detection]) -> Matches:
    """Match boxes as COCO does: surest first, each to the free box of its class with the highest IoU.

    A box that lies in a crowd (`iscrowd`) is neither right nor wrong. At most 100 of a class count in a picture.
    Source: pycocotools' COCOeval, which this runs.
    """
    from pycocotools.cocoeval import COCOeval

    detections.check(found, manifest)
    with contextlib.redirect_stdout(io.StringIO()):  # it narrates
        run = COCOeval(_truth(manifest), _found(manifest, found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    pictures, areas = len(manifest.images), len(run.params.areaRng)
    index = {image.id: number for number, image in enumerate(manifest.images)}
    classes = []
    for number in range(len(run.params.catIds)):
        begin = number * areas * pictures  # the first of the areas is "all"
        classes.append(_of_class(run.evalImgs[begin : begin + pictures], index))
    return Matches(tuple(classes), np.asarray(run.stats), run.eval["precision"][:, :, :, 0, -1])


def _truth(manifest: Manifest) -> "COCO":
    annotations = [a.model_dump() | {"bbox": list(a.bbox)} for a in manifest.annotations]
    assert all(a["id"] > 0 for a in annotations), "pycocotools takes the id 0 for no match"
    return _coco(manifest, annotations)


def _found(manifest: Manifest, found: Sequence[Detection]) -> "COCO":
    annotations = [
        {**one, "bbox": list(one["bbox"]), "id": number, "area": one["bbox"][2] * one["bbox"][3], "iscrowd": 0}
        for number, one in enumerate(found, start=1)
    ]
    return _coco(manifest, annotations)


def _coco(manifest: Manifest, annotations: list[dict[str, Any]]) -> "COCO":
    """Without a file, and without loadRes, which cannot read that nothing was found."""
    from pycocotools.coco import COCO

    made = COCO()
    made.dataset = {
        "images": [{"id": image.id} for image in manifest.images],
        "annotations": annotations,
        "categories": [category.model_dump() for category in manifest.categories],
    }
    made.createIndex()
    return made


def _of_class(evaluated: Sequence[Any], index: dict[int, int]) -> ClassMatches:
    there = [one for one in evaluated if one is not None]
    boxes = np.zeros(len(index), np.int64)
    for one in there:
        boxes[index[one["image_id"]]] = np.count_nonzero(np.asarray(one["gtIgnore"]) == 0)

    def joined(key: str, rows: int) -> NDArray[np.float64]:
        parts = [np.asarray(one[key], np.float64).reshape(rows, -1) for one in there]
        return np.concatenate([np.empty((rows, 0)), *parts], axis=1)

    score = joined("dtScores", 1)[0]
    order = np.argsort(-score, kind="mergesort")  # as pycocotools sorts
    matched = joined("dtMatches", len(IOUS))[:, order]
    picture = [index[one["image_id"]] for one in there for _ in one["dtIds"]]
    return ClassMatches(
        picture=np.array(picture, np.int64)[order],
        found=joined("dtIds", 1)[0, order].astype(np.int64) - 1,
        score=score[order],
        matched=matched > 0,
        ignored=joined("dtIgnore", len(IOUS))[:, order] > 0,
        truth=matched[0].astype(np.int64),
        boxes=boxes,
    )
