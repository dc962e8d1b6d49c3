import json
import re
from pathlib import Path
from typing import Any

import pytest

from headstart import coco
from headstart.errors import UserError
from headstart.sources import Box, Failed, Wanted, collect
from pictures import encoded, fetched, params, picture, put

SOURCE = {"coco": {"images": "set/images", "annotations": "set/result.json"}}


def annotated(root: Path, **changes: Any) -> dict[str, Any]:
    """What an exporter writes: two pictures with boxes, one without."""
    data: dict[str, Any] = {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 60, "height": 40, "license": 3, "flickr_url": "http://f/1"},
            {"id": 8, "file_name": "../../label-studio/upload\\b.png", "width": 60, "height": 40},
            {"id": 9, "file_name": "deep/c.png"},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 0, "bbox": [1, 2, 10, 20], "iscrowd": 1, "area": 3},
            {"id": 2, "image_id": 8, "category_id": 5, "bbox": [0, 0, 70, 10], "segmentation": [[1, 2]]},
        ],
        "categories": [{"id": 0, "name": "cat"}, {"id": 5, "name": "dog"}, {"id": 6, "name": "unused"}],
        "licenses": [{"id": 3, "url": "http://cc", "name": "CC"}],
    } | changes
    for name in ("a.png", "b.png", "deep/c.png"):
        put(root / "set/images" / name, encoded(picture(len(name), (60, 40))))
    put(root / "set/result.json", json.dumps(data).encode())
    return data


def found(root: Path) -> list[Wanted | Failed]:
    return collect(params(SOURCE).fetch, root)


def test_pictures_boxes_and_licences(tmp_path: Path) -> None:
    annotated(tmp_path)
    first, second, third = (item for item in found(tmp_path) if isinstance(item, Wanted))
    assert (first.location, first.label, first.frame) == ("set/images/a.png", "cat", (60, 40))
    assert first.boxes == (Box("cat", 1, 2, 11, 22, crowd=True),)
    assert (first.license, first.landing_url) == ("http://cc", "http://f/1")
    assert (second.location, second.label) == ("set/images/b.png", "dog")
    assert (third.location, third.label, third.boxes) == ("set/images/deep/c.png", None, ())


def test_the_manifest_has_the_boxes(tmp_path: Path) -> None:
    annotated(tmp_path)
    manifest = fetched(tmp_path, SOURCE, max_failed=1)  # the background has no label, which `classify` needs
    assert manifest.labels() == ["cat", "dog"]
    assert [(a.bbox, a.iscrowd, a.category_id) for a in manifest.annotations] == [
        ((1, 2, 10, 20), 1, 1),
        ((0, 0, 60, 10), 0, 2),
    ]
    coco.write(manifest, tmp_path / "again.json")
    again = {"coco": {"images": ".", "annotations": "again.json"}}
    boxes = [item.boxes for item in collect(params(again).fetch, tmp_path) if isinstance(item, Wanted)]
    assert boxes == [(Box("cat", 1, 2, 11, 22, crowd=True),), (Box("dog", 0, 0, 60, 10),)]


def test_annotations_of_nothing_are_written_down(tmp_path: Path) -> None:
    annotations = [
        {"id": 1, "image_id": 99, "category_id": 0, "bbox": [1, 2, 10, 20]},
        {"id": 2, "image_id": 7, "category_id": 99, "bbox": [1, 2, 10, 20]},
        {"id": 3, "image_id": 7, "category_id": 0, "segmentation": [[1, 2, 3, 4, 5, 6]]},
    ]
    annotated(tmp_path, annotations=annotations)
    reasons = [item.reason for item in found(tmp_path) if isinstance(item, Failed) and item.ignored]
    assert reasons == [
        "box dropped: no picture has the id 99",
        "box dropped: no category has the id 99",
        "annotation without a box (cat)",
    ]


def test_pictures_that_exif_turns(tmp_path: Path) -> None:
    """The annotation's width and height say whether its boxes are in the stored or in the upright frame."""
    annotated(tmp_path)
    put(tmp_path / "set/images/a.png", encoded(picture(size=(60, 40)), "PNG", 6))
    put(tmp_path / "set/images/b.png", encoded(picture(1, (40, 60)), "PNG", 6))  # upright 60 x 40
    manifest = fetched(tmp_path, SOURCE, max_failed=1)
    assert [(i.width, i.height) for i in manifest.images] == [(40, 60), (60, 40)]
    assert [a.bbox for a in manifest.annotations] == [(18, 1, 20, 10), (0, 0, 60, 10)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "set/result.json: no such file; name the JSON file of the export"),
        ("[", "set/result.json: not a JSON file"),
        ("[]", "no list 'images' in it; export it as COCO"),
        ('{"images": [{"id": 1}], "annotations": []}', "no list 'categories' in it"),
        ('{"images": [], "annotations": [], "categories": []}', "no pictures in it"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "not in order (no 'file_name')"),
        ('{"images": [5], "annotations": [], "categories": []}', "not in order"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    put(tmp_path / "set/images/a.png")
    if text is not None:
        put(tmp_path / "set/result.json", text.encode())
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        found(tmp_path)
    assert str(caught.value).startswith("params.yaml: fetch.sources.0: coco.annotations: set/result.json: ")


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape("coco.images: set/images: no such folder")):
        found(tmp_path)
