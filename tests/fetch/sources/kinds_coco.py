"""What `coco` makes of its files."""

import json
from pathlib import Path
from typing import Any

from fetch.kinds import Kinds, boxes_of, error_of, rejected
from pictures import encoded, picture, put

KINDS = Kinds("coco")
SOURCE = {"coco": {"images": "p", "annotations": "a.json"}}
BOX = {"image_id": 1, "category_id": 1, "bbox": [5, 6, 10, 8]}


def export(root: Path, *annotations: dict[str, Any], sized: bool = True, **changes: Any) -> None:
    """Two pictures of 40 x 24, a.png with these annotations in place of BOX."""
    size = {"width": 40, "height": 24} if sized else {}
    data = {
        "images": [{"id": n, "file_name": name} | size for n, name in ((1, "a.png"), (2, "b.png"))],
        "annotations": [BOX | {"id": n} | annotation for n, annotation in enumerate(annotations)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    for seed, name in enumerate(("a.png", "b.png")):
        put(root / "p" / name, encoded(picture(seed, (40, 24))))
    put(root / "a.json", json.dumps(data | changes).encode())


@KINDS.row("ids as numbers in one list and as text in another", "compared as text")
def _text_ids(root: Path) -> None:
    export(root, {"image_id": "1", "category_id": "2"})
    assert boxes_of(root, SOURCE) == {"p/a.png": [("dog", 5, 6, 10, 8)], "p/b.png": []}


@KINDS.row("two pictures, or two categories, of one id", "an error that names both")
def _same_id(root: Path) -> None:
    export(root, {}, images=[{"id": 1, "file_name": "a.png"}, {"id": "1", "file_name": "b.png"}])
    assert "'a.png' and 'b.png' have the same id 1" in error_of(root, SOURCE)
    export(root, {}, categories=[{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}])
    assert "the category id 1 is of 'cat' and of 'dog'" in error_of(root, SOURCE)


@KINDS.row("two categories of one name", "one label")
def _same_category(root: Path) -> None:
    export(root, {}, {"category_id": 2, "bbox": [1, 1, 3, 3]}, categories=[{"id": n, "name": "cat"} for n in (1, 2)])
    assert boxes_of(root, SOURCE)["p/a.png"] == [("cat", 5, 6, 10, 8), ("cat", 1, 1, 3, 3)]


@KINDS.row("one file listed twice", "boxes united, repeated ones once; rejected where the sizes differ")
def _listed_twice(root: Path) -> None:
    twice = [{"id": n, "file_name": "a.png", "width": 40, "height": 24} for n in (1, 2)]
    export(root, {}, {"image_id": 2}, {"image_id": 2, "bbox": [1, 1, 3, 3]}, images=twice)
    assert boxes_of(root, SOURCE) == {"p/a.png": [("cat", 5, 6, 10, 8), ("cat", 1, 1, 3, 3)]}
    twice[1]["height"] = 30
    export(root, {}, images=twice)
    assert rejected(root, SOURCE) == {"p/a.png": "it is listed twice, with different sizes"}


@KINDS.row("two names that lead to one file (`x/1.jpg`, `y/1.jpg`, and there is only `1.jpg`)", "both rejected")
def _one_file(root: Path) -> None:
    export(root, {}, images=[{"id": 1, "file_name": "x/a.png"}, {"id": 2, "file_name": "y/a.png"}])
    assert "leads to the same file" in rejected(root, SOURCE)["p/a.png"]
    assert boxes_of(root, SOURCE) == {}


@KINDS.row("an annotation of no category", "its picture rejected")
def _no_category(root: Path) -> None:
    export(root, {}, {"category_id": 9})
    assert rejected(root, SOURCE) == {"p/a.png": "a.json: annotation 1: no category has its category_id 9"}
    assert boxes_of(root, SOURCE) == {"p/b.png": []}


@KINDS.row("an annotation of no picture", "a rejection; of the picture that its id may mean (`0001` for 1, a name)")
def _no_picture(root: Path) -> None:
    export(root, {}, {"image_id": 9})
    assert rejected(root, SOURCE) == {"a.json: annotation 1": "no picture has its image_id 9"}
    export(root, {"image_id": "01"}, {"image_id": "b.png"})
    assert sorted(rejected(root, SOURCE)) == ["p/a.png", "p/b.png"]


@KINDS.row("an outline, or a mask as RLE, and no `bbox`", "the box round it")
def _outline(root: Path) -> None:
    outline = {"bbox": [], "segmentation": [[5, 6, 15, 6, 10, 14]]}
    mask = {"bbox": None, "segmentation": {"size": [24, 40], "counts": [24 * 5 + 6, 8, 24 * 35 - 14]}}
    export(root, outline, mask)
    assert boxes_of(root, SOURCE)["p/a.png"] == [("cat", 5, 6, 10, 8), ("cat", 5, 6, 1, 8)]


@KINDS.row("neither `bbox` nor outline; a size of 0 or below, NaN, text", "its picture rejected")
def _no_box(root: Path) -> None:
    bboxes: list[list[float]] = [[], [5, 6, -1, 8], [5, 6, 0, 8], [5, 6, float("nan"), 8]]
    for bbox in bboxes:
        export(root, {}, {"bbox": bbox})
        assert list(rejected(root, SOURCE)) == ["p/a.png"]
        assert boxes_of(root, SOURCE) == {"p/b.png": []}


@KINDS.row("`attributes.rotation` (CVAT)", "the upright box round the turned rectangle")
def _rotation(root: Path) -> None:
    export(root, {"attributes": {"rotation": 90.0}})
    assert boxes_of(root, SOURCE)["p/a.png"] == [("cat", 6, 5, 8, 10)]


@KINDS.row("all boxes within 0 and 1", "scaled by each image's width and height; an error where it has none")
def _fractions(root: Path) -> None:
    export(root, {"bbox": [0.5, 0.25, 0.25, 0.5]})
    assert boxes_of(root, SOURCE)["p/a.png"] == [("cat", 20, 6, 10, 12)]
    export(root, {"bbox": [0.5, 0.25, 0.25, 0.5]}, sized=False)
    assert "all corners lie within 0 and 1" in error_of(root, SOURCE)


@KINDS.row("all `bbox` are xmin, ymin, xmax, ymax, by their `area` or because they leave the picture", "an error")
def _corners(root: Path) -> None:
    export(root, {"bbox": [20, 10, 38, 22]})
    assert "all would fit as xmin, ymin, xmax, ymax" in error_of(root, SOURCE)


@KINDS.row("the same key twice in an object, deep nesting, no UTF-8", "an error")
def _json(root: Path) -> None:
    export(root, {})
    for text in (b'{"images": [], "images": []}', b"[" * 100_000, b'"\xff"'):
        put(root / "a.json", text)
        error_of(root, SOURCE)
