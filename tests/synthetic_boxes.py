"""Synthetic detector evaluations: manifests with boxes, and what two models detect in their pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from headstart.base.detections import Detection, SplitDetections
from headstart.base.manifest import Annotation, Image, Manifest, make_categories
from headstart.evaluation.detector.results import DetectorSplits, detector_results
from headstart.evaluation.history import read_history
from headstart.evaluation.writer import write_results
from headstart.params.root import EvaluateParams
from synthetic_logits import make_facts, make_history

NAMES = ("cat", "dog", "raccoon")
XywhBox = tuple[float, float, float, float]


def manifest(
    boxes: Sequence[Sequence[tuple[str, XywhBox]]], names: Sequence[str] = NAMES, crowds: Sequence[int] = ()
) -> Manifest:
    """One picture of 200 x 160 pixels for each list of boxes; `crowds` are ids of boxes, from 1."""
    categories = make_categories(names)
    category_ids = {category.name: category.id for category in categories}
    images = [
        Image(id=n, file_name=f"images/{n}.png", width=200, height=160, sha256=f"{n:064}", source="made up")
        for n in range(1, len(boxes) + 1)
    ]
    annotations: list[Annotation] = []
    for image, of_image in zip(images, boxes, strict=True):
        for name, box in of_image:
            n = len(annotations) + 1
            annotations.append(
                Annotation(
                    id=n,
                    image_id=image.id,
                    category_id=category_ids[name],
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=int(n in crowds),
                )
            )
    return Manifest(images=tuple(images), annotations=tuple(annotations), categories=categories)


def make_detections(*rows: tuple[int, str, XywhBox, float], names: Sequence[str] = NAMES) -> list[Detection]:
    """(picture, label, box, score) as COCO results."""
    category_ids = {category.name: category.id for category in make_categories(names)}
    return [
        Detection(image_id=image, category_id=category_ids[name], bbox=box, score=score)
        for image, name, box, score in rows
    ]


def random_boxes(seed: int, pictures: int, names: Sequence[str] = NAMES, crowds: float = 0.1) -> Manifest:
    """Up to five boxes a picture, some of them crowds, some pictures without any."""
    rng = np.random.default_rng(seed)
    boxes = [[(str(rng.choice(names)), _box(rng)) for _ in range(rng.integers(0, 6))] for _ in range(pictures)]
    count = sum(map(len, boxes))
    return manifest(boxes, names, [n for n in range(1, count + 1) if rng.random() < crowds])


def random_detections(seed: int, truth: Manifest, noise: float = 4.0) -> list[Detection]:
    """Most of the boxes, shifted a little, some with a wrong label, and false positives; no two scores are equal."""
    rng = np.random.default_rng(seed)
    category_ids = [category.id for category in truth.categories]
    rows = []
    for annotation in truth.annotations:
        if rng.random() < 0.8:
            label = annotation.category_id if rng.random() < 0.85 else int(rng.choice(category_ids))
            shifted = np.array(annotation.bbox) + rng.normal(0, noise, 4)
            rows.append((annotation.image_id, label, shifted, rng.beta(4, 2)))
    for image in truth.images:
        rows += [
            (image.id, int(rng.choice(category_ids)), _box(rng), rng.beta(2, 4)) for _ in range(rng.integers(0, 6))
        ]
    return [
        Detection(image_id=i, category_id=k, bbox=tuple(np.maximum(box, 1).tolist()), score=float(score))
        for i, k, box, score in rows
    ]


def _box(rng: np.random.Generator) -> Any:
    x, y = rng.uniform(0, 140), rng.uniform(0, 110)
    return (x, y, rng.uniform(8, 200 - x), rng.uniform(8, 160 - y))


def write_pictures(root: Path, truth: Manifest) -> None:
    for image in truth.images:
        path = root / image.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("L", (image.width, image.height), 40 * image.id % 256).save(path)


def write_evaluation(
    folder: Path,
    val: Manifest,
    test: Manifest,
    head_only: SplitDetections,
    fine_tuned: SplitDetections,
    gallery: int = 6,
) -> Path:
    """The folder that the stage writes for these detections, with pictures and histories made up."""
    write_pictures(folder, test)
    stages = ("train-head", "fine-tune")
    _, results = detector_results(
        DetectorSplits(folder, val, test),
        head_only,
        fine_tuned,
        params=EvaluateParams(bootstrap=100, gallery=gallery),
        seed=0,
        histories={name: read_history(make_history(folder / f"{name}.csv", 3, "AP50"), "AP50") for name in stages},
        facts=make_facts(test.labels()),
    )
    write_results(folder / "out", results)
    return folder / "out"


def write_random_evaluation(folder: Path, pictures: int = 12, names: Sequence[str] = NAMES) -> Path:
    val, test = random_boxes(1, pictures, names), random_boxes(2, pictures, names)
    weak, strong = (
        SplitDetections(random_detections(seed, val, noise), random_detections(seed + 10, test, noise))
        for seed, noise in ((3, 9), (4, 4))
    )
    return write_evaluation(folder, val, test, weak, strong)
