"""Made-up exams of a detector: pictures with boxes, and what two models found in them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from exams import make_facts, make_history
from headstart.box_evaluate import BoxExam, write_box_evaluation
from headstart.coco import Annotation, Image, Manifest, categories
from headstart.detections import Detection, Found
from headstart.params import EvaluateParams

NAMES = ("cat", "dog", "raccoon")
Box = tuple[float, float, float, float]


def manifest(
    boxes: Sequence[Sequence[tuple[str, Box]]], names: Sequence[str] = NAMES, crowds: Sequence[int] = ()
) -> Manifest:
    """One picture of 200 x 160 pixels for each list of boxes; `crowds` are numbers of boxes, from 1."""
    some = categories(names)
    number = {category.name: category.id for category in some}
    images = [
        Image(id=n, file_name=f"images/{n}.png", width=200, height=160, sha256=f"{n:064}", source="made up")
        for n in range(1, len(boxes) + 1)
    ]
    annotations: list[Annotation] = []
    for image, own in zip(images, boxes, strict=True):
        for name, box in own:
            n = len(annotations) + 1
            annotations.append(
                Annotation(
                    id=n,
                    image_id=image.id,
                    category_id=number[name],
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=int(n in crowds),
                )
            )
    return Manifest(images=tuple(images), annotations=tuple(annotations), categories=some)


def found(*rows: tuple[int, str, Box, float], names: Sequence[str] = NAMES) -> list[Detection]:
    """(picture, label, box, score) as COCO results."""
    number = {category.name: category.id for category in categories(names)}
    return [
        Detection(image_id=image, category_id=number[name], bbox=box, score=score) for image, name, box, score in rows
    ]


def random_boxes(seed: int, pictures: int, names: Sequence[str] = NAMES, crowds: float = 0.1) -> Manifest:
    """Up to five boxes a picture, some of them crowds, some pictures without any."""
    rng = np.random.default_rng(seed)
    boxes = [[(str(rng.choice(names)), _box(rng)) for _ in range(rng.integers(0, 6))] for _ in range(pictures)]
    count = sum(map(len, boxes))
    return manifest(boxes, names, [n for n in range(1, count + 1) if rng.random() < crowds])


def random_found(seed: int, there: Manifest, noise: float = 4.0) -> list[Detection]:
    """Most of the boxes, moved a little, some under a wrong label, and boxes of nothing; no two equally sure."""
    rng = np.random.default_rng(seed)
    numbers = [category.id for category in there.categories]
    rows = []
    for one in there.annotations:
        if rng.random() < 0.8:
            label = one.category_id if rng.random() < 0.85 else int(rng.choice(numbers))
            moved = np.array(one.bbox) + rng.normal(0, noise, 4)
            rows.append((one.image_id, label, moved, rng.beta(4, 2)))
    for image in there.images:
        rows += [(image.id, int(rng.choice(numbers)), _box(rng), rng.beta(2, 4)) for _ in range(rng.integers(0, 6))]
    return [
        Detection(image_id=i, category_id=k, bbox=tuple(np.maximum(box, 1).tolist()), score=float(score))
        for i, k, box, score in rows
    ]


def _box(rng: np.random.Generator) -> Any:
    x, y = rng.uniform(0, 140), rng.uniform(0, 110)
    return (x, y, rng.uniform(8, 200 - x), rng.uniform(8, 160 - y))


def put_pictures(root: Path, there: Manifest) -> None:
    for image in there.images:
        path = root / image.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("L", (image.width, image.height), 40 * image.id % 256).save(path)


def write(folder: Path, val: Manifest, test: Manifest, head_only: Found, fine_tuned: Found, gallery: int = 6) -> Path:
    """The stage's output for an exam, with pictures and histories made up."""
    put_pictures(folder, test)
    out = folder / "out"
    write_box_evaluation(
        out,
        exam=BoxExam(folder, val, test),
        head_only=head_only,
        fine_tuned=fine_tuned,
        params=EvaluateParams(bootstrap=100, gallery=gallery),
        seed=0,
        histories={name: make_history(folder / f"{name}.csv", 3, "AP50") for name in ("train-head", "fine-tune")},
        facts=make_facts(test.labels()),
    )
    return out


def write_random(folder: Path, pictures: int = 12, names: Sequence[str] = NAMES) -> Path:
    val, test = random_boxes(1, pictures, names), random_boxes(2, pictures, names)
    weak, strong = (
        Found(random_found(seed, val, noise), random_found(seed + 10, test, noise)) for seed, noise in ((3, 9), (4, 4))
    )
    return write(folder, val, test, weak, strong)
