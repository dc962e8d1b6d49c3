"""What an exported model says of the test pictures, and which pictures those are, so that two models compare."""

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from headstart.coco import Manifest
from headstart.files import read_json, write_text
from headstart.predict import Said

NAME = "answers.json"

Box = tuple[int, float, float, float, float, float]  # label's number, score, left, top, width, height


class Sitting(BaseModel):
    """One model at one exam; pictures go by their sha256, so that their names and numbers may change.

    Attributes:
        exam: `digest` of the test pictures.
        labels: names in the order of the model's numbers.
        probabilities: calibrated, of each picture; empty for a detector.
        boxes: of each picture, the unsure ones too; empty for a classifier.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    exam: str
    labels: tuple[str, ...]
    probabilities: dict[str, tuple[float, ...]] = {}
    boxes: dict[str, tuple[Box, ...]] = {}


def digest(test: Manifest) -> str:
    """Hash of the test pictures' bytes and of what is said to be on them, whatever their order, names and ids."""
    names = {category.id: category.name for category in test.categories}
    boxes: dict[int, list[object]] = {image.id: [] for image in test.images}
    for one in test.annotations:
        boxes[one.image_id].append([names[one.category_id], *one.bbox, one.iscrowd])
    rows = sorted(json.dumps([image.sha256, image.label, sorted(map(str, boxes[image.id]))]) for image in test.images)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def sit(test: Manifest, labels: list[str], said: list[Said]) -> Sitting:
    """What a model said of the test pictures, in their order; scores to millionths, boxes to thousandths of a pixel."""
    answers = dict(zip((image.sha256 for image in test.images), said, strict=True))
    if said[0].boxes is None:
        shares = {key: tuple(round(p, 6) for p in one.probabilities.values()) for key, one in answers.items()}
        return Sitting(exam=digest(test), labels=tuple(labels), probabilities=shares)
    boxes = {
        key: tuple((labels.index(box.label), round(box.score, 6), *_sides(box.corners)) for box in one.boxes or ())
        for key, one in answers.items()
    }
    return Sitting(exam=digest(test), labels=tuple(labels), boxes=boxes)


def write(sitting: Sitting, folder: Path) -> None:
    """answers.json, one picture a line."""
    lines = [f'{{"exam": "{sitting.exam}", "labels": {json.dumps(sitting.labels, ensure_ascii=False)}']
    for field in ("probabilities", "boxes"):
        rows = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in getattr(sitting, field).items()]
        lines.append(f'"{field}": {{\n' + ",\n".join(rows) + "\n}")
    write_text(folder / NAME, ",\n".join(lines) + "}\n")


def read(path: Path) -> Sitting:
    """What `write` wrote."""
    return Sitting.model_validate(read_json(path))


def _sides(corners: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = corners
    return round(x1, 3), round(y1, 3), round(x2 - x1, 3), round(y2 - y1, 3)
