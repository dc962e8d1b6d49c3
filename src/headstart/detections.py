"""What a detector found in pictures, as COCO writes results: one dictionary a box."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from headstart.coco import Manifest
from headstart.files import write_text


class Detection(TypedDict):
    """One box found: COCO `[x, y, width, height]` in pixels of the upright picture, and how sure the model is."""

    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    score: float


@dataclass(frozen=True)
class Found:
    """What one model found in the val and in the test pictures."""

    val: Sequence[Detection]
    test: Sequence[Detection]


def write(found: Sequence[Detection], path: Path) -> None:
    """COCO results, which pycocotools and FiftyOne read beside the split's manifest; one box a line.

    Boxes are rounded to thousandths of a pixel, scores to millionths.
    """
    rows = [
        json.dumps(
            {
                "image_id": one["image_id"],
                "category_id": one["category_id"],
                "bbox": [round(float(value), 3) for value in one["bbox"]],
                "score": round(float(one["score"]), 6),
            }
        )
        for one in found
    ]
    write_text(path, "[\n" + ",\n".join(rows) + "\n]\n")


def check(found: Sequence[Detection], manifest: Manifest) -> None:
    """`assert` that each box is of a picture and a category of the manifest, and made of numbers."""
    images, categories = {i.id for i in manifest.images}, {c.id for c in manifest.categories}
    for one in found:
        assert one["image_id"] in images, f"picture {one['image_id']} is not among those examined"
        assert one["category_id"] in categories, f"no category {one['category_id']}"
        assert all(abs(value) < float("inf") for value in (*one["bbox"], one["score"])), f"no numbers: {one}"
