"""Detections in COCO's results format: one dictionary a box."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from headstart.base.manifest import Manifest

BACKGROUND = "background"  # the class of "no object" in a detector's confusion matrix


class Detection(TypedDict):
    """One predicted box: COCO `[x, y, width, height]` in pixels of the upright picture, and its score (0 to 1)."""

    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    score: float


@dataclass(frozen=True)
class SplitDetections:
    """One model's detections in the val and in the test pictures."""

    val: Sequence[Detection]
    test: Sequence[Detection]


def check_detections(detections: Sequence[Detection], manifest: Manifest) -> None:
    """`assert` that each box is of a picture and a category of the manifest, and that its numbers are finite."""
    images, categories = {i.id for i in manifest.images}, {c.id for c in manifest.categories}
    for detection in detections:
        assert detection["image_id"] in images, f"picture {detection['image_id']} is not in the manifest"
        assert detection["category_id"] in categories, f"no category {detection['category_id']}"
        numbers = (*detection["bbox"], detection["score"])
        assert all(abs(value) < float("inf") for value in numbers), f"not finite: {detection}"
