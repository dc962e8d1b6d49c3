"""answers.json: an exported model's predictions on the test set, and a digest of that set, so that models compare."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from headstart.base.files import read_json, write_text
from headstart.base.manifest import Manifest, xyxy_to_xywh
from headstart.base.units import unit_name
from headstart.export.model_prediction import DetectedBox, ModelPrediction

FILE_NAME = "answers.json"

ScoredBoxRow = tuple[int, float, float, float, float, float]  # number of the label, score, x, y, width, height


class SavedPredictions(BaseModel):
    """One model's predictions; pictures go by their sha256, so that their names and ids may change.

    Attributes:
        test_set: `manifest_digest` of the test set; `exam` in the file.
        labels: names in the order of the model's outputs.
        probabilities: by picture, calibrated; empty for a detector.
        boxes: by picture, of all scores; empty for a classifier.
        units: by picture, the unit that it shares with others; pictures alone and those of earlier files have none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    test_set: str = Field(alias="exam")
    labels: tuple[str, ...]
    probabilities: dict[str, tuple[float, ...]] = {}
    boxes: dict[str, tuple[ScoredBoxRow, ...]] = {}
    units: dict[str, str] = {}

    def pictures(self) -> frozenset[str]:
        """The sha256 of every picture that was predicted."""
        return frozenset(self.probabilities or self.boxes)


def manifest_digest(test: Manifest) -> str:
    """Hash of a test set: the pictures' bytes, labels and boxes, whatever their order, names and ids."""
    names = {category.id: category.name for category in test.categories}
    boxes: dict[int, list[object]] = {image.id: [] for image in test.images}
    for annotation in test.annotations:
        boxes[annotation.image_id].append([names[annotation.category_id], *annotation.bbox, annotation.iscrowd])
    rows = sorted(json.dumps([image.sha256, image.label, sorted(map(str, boxes[image.id]))]) for image in test.images)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def collect_predictions(test: Manifest, labels: list[str], predictions: Sequence[ModelPrediction]) -> SavedPredictions:
    """Round predictions and order them by picture: scores to millionths, boxes to thousandths of a pixel.

    Args:
        test: the test set.
        labels: names in the order of the model's outputs.
        predictions: in the order of the test set's pictures.
    """
    by_picture = dict(zip((image.sha256 for image in test.images), predictions, strict=True))
    units = {image.sha256: name for image in test.images if (name := unit_name(image)) != image.sha256}
    saved = SavedPredictions(test_set=manifest_digest(test), labels=tuple(labels), units=units)
    if predictions[0].boxes is None:
        probabilities = {
            sha256: tuple(round(value, 6) for value in one.probabilities.values()) for sha256, one in by_picture.items()
        }
        return saved.model_copy(update={"probabilities": probabilities})
    boxes = {sha256: tuple(_box_row(box, labels) for box in one.boxes or ()) for sha256, one in by_picture.items()}
    return saved.model_copy(update={"boxes": boxes})


def _box_row(box: DetectedBox, labels: list[str]) -> ScoredBoxRow:
    x, y, width, height = (round(value, 3) for value in xyxy_to_xywh(box.corners))
    return labels.index(box.label), round(box.score, 6), x, y, width, height


def write_predictions(predictions: SavedPredictions, folder: Path) -> None:
    """Write answers.json, one picture a line."""
    labels = json.dumps(predictions.labels, ensure_ascii=False)
    parts = [f'{{"exam": "{predictions.test_set}", "labels": {labels}']
    for field in ("probabilities", "boxes", "units"):
        rows = [
            f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}"
            for key, value in getattr(predictions, field).items()
        ]
        parts.append(f'"{field}": {{\n' + ",\n".join(rows) + "\n}")
    write_text(folder / FILE_NAME, ",\n".join(parts) + "}\n")


def read_predictions(path: Path) -> SavedPredictions:
    """Read answers.json.

    Raises:
        pydantic.ValidationError: the file has another format.
    """
    return SavedPredictions.model_validate(read_json(path))
