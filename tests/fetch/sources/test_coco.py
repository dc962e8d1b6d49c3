import json
import re
from pathlib import Path
from typing import Any

import pytest

from headstart.base.errors import UserError
from headstart.base.manifest import write_manifest
from headstart.fetch.sources.collect import collect_images
from headstart.fetch.sources.records import Rejection, SourceBox, SourceImage
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


def found(root: Path) -> list[SourceImage | Rejection]:
    return collect_images(params(SOURCE).fetch, root)


def test_pictures_boxes_and_licences(tmp_path: Path) -> None:
    annotated(tmp_path)
    first, second, third = (item for item in found(tmp_path) if isinstance(item, SourceImage))
    assert (first.location, first.label, first.frame) == ("set/images/a.png", "cat", (60, 40))
    assert first.boxes == (SourceBox("cat", 1, 2, 11, 22, crowd=True),)
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
    write_manifest(manifest, tmp_path / "again.json")
    again = {"coco": {"images": ".", "annotations": "again.json"}}
    boxes = [item.boxes for item in collect_images(params(again).fetch, tmp_path) if isinstance(item, SourceImage)]
    assert boxes == [(SourceBox("cat", 1, 2, 11, 22, crowd=True),), (SourceBox("dog", 0, 0, 60, 10),)]


def test_annotations_that_cannot_be_used_are_listed(tmp_path: Path) -> None:
    annotations = [
        {"id": 1, "image_id": 99, "category_id": 0, "bbox": [1, 2, 10, 20]},
        {"id": 2, "image_id": 7, "category_id": 99, "bbox": [1, 2, 10, 20]},
        {"id": 3, "image_id": 7, "category_id": 0, "segmentation": [[1, 2, 3, 4, 5, 6]]},
    ]
    annotated(tmp_path, annotations=annotations)
    reasons = [item.reason for item in found(tmp_path) if isinstance(item, Rejection) and item.ignored]
    assert reasons == [
        "box dropped: no picture has the id 99",
        "box dropped: no category has the id 99",
        "annotation without a box (cat)",
    ]


def test_pictures_that_exif_rotates(tmp_path: Path) -> None:
    """The annotation's width and height decide whether its boxes are in the stored or in the upright frame."""
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
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "invalid COCO (no 'file_name')"),
        ('{"images": [5], "annotations": [], "categories": []}', "invalid COCO"),
    ],
)
def test_an_invalid_file_is_one_error_line(tmp_path: Path, text: str | None, message: str) -> None:
    put(tmp_path / "set/images/a.png")
    if text is not None:
        put(tmp_path / "set/result.json", text.encode())
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        found(tmp_path)
    assert str(caught.value).startswith("params.yaml: fetch.sources.0: coco.annotations: set/result.json: ")


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape("coco.images: set/images: no such folder")):
        found(tmp_path)
