import itertools
import json
import re
from pathlib import Path
from typing import Any

import pycocotools.mask
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fetch.boxes_in_out import LABELS, SIZES, Drawn, assert_all, assert_all_or_rejected, drawn, put_pictures
from headstart.base.errors import UserError
from headstart.base.manifest import write_manifest
from headstart.fetch.sources.coco_boxes import box_round_segmentation
from headstart.fetch.sources.collect import collect_images
from headstart.fetch.sources.records import Rejection, SourceBox, SourceImage
from headstart.fetch.sources.shapes import decode_coco_counts
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
    for seed, name in enumerate(("a.png", "b.png", "deep/c.png")):
        put(root / "set/images" / name, encoded(picture(seed, (60, 40))))
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


def test_annotations_that_cannot_be_used_reject(tmp_path: Path) -> None:
    annotations = [
        {"id": 1, "image_id": 99, "category_id": 0, "bbox": [1, 2, 10, 20]},
        {"id": 2, "image_id": 7, "category_id": 99, "bbox": [1, 2, 10, 20]},
        {"id": 3, "image_id": 7, "category_id": 0, "bbox": [1, 2, 10, 20]},
        {"id": 4, "image_id": 8, "category_id": 0, "segmentation": []},
        {"image_id": None, "category_id": 0, "bbox": [1, 2, 10, 20]},
    ]
    annotated(tmp_path, annotations=annotations)
    rejections = [item for item in found(tmp_path) if isinstance(item, Rejection)]
    assert {item.source for item in rejections} == {"coco:set/result.json"}
    assert [(item.location, item.reason, item.ignored) for item in rejections] == [
        ("set/images/a.png", "set/result.json: annotation 2: no category has its category_id 99", False),
        ("set/images/b.png", "set/result.json: annotation 4: it has neither a bbox nor an outline", False),
        ("set/result.json: annotation 1", "no picture has its image_id 99", False),
        ("set/result.json: annotation no. 5", "no picture has its image_id None", False),
    ]


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"bbox": [1, 2, -3, 4]}, "its bbox has the width -3 and the height 4"),
        ({"bbox": [1, 2, 3, 0]}, "its bbox has the width 3 and the height 0"),
        ({"bbox": [1, 2, float("nan"), 4]}, "'nan' is not a finite number"),
        ({"bbox": [1, 2, 10**400, 4]}, "is not a finite number"),
        ({"bbox": [1, 2, True, 4]}, "'True' is not a finite number"),
        ({"bbox": [1, 2, 3]}, "its bbox [1, 2, 3] is not x, y, width and height"),
        ({"bbox": {"x": 1}}, "is not x, y, width and height"),
        ({"bbox": [1, 2, 3, 4], "iscrowd": "yes"}, "its iscrowd is 'yes'"),
        ({"bbox": [1, 2, 3, 4], "attributes": {"rotation": float("inf")}}, "'inf' is not a finite number"),
        ({"bbox": None, "segmentation": [[1, 2, 3, 4]]}, "at least three points"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "at least three points"),
        ({"segmentation": [[1, 2, 3, 4, 5, "six"]]}, "'six' is not a finite number"),
        ({"segmentation": {"size": [40, 60], "counts": [1, 2]}}, "its mask is not one of 60 x 40 pixels"),
        ({"segmentation": {"size": [40, 60], "counts": [2400]}}, "its mask is empty"),
        ({"segmentation": {"size": [0, 60], "counts": [0]}}, "its mask is not one of 60 x 0 pixels"),
        ({"segmentation": {"size": [40], "counts": [1, 2]}}, "its mask has no size"),
        ({"segmentation": {"size": [40, 60]}}, "its mask has no counts"),
        ({"segmentation": {"size": [40, 60], "counts": "oo"}}, "its mask is cut short"),
        ({"segmentation": {"size": [40, 60], "counts": "\u00e9"}}, "its mask has the character"),
    ],
)
def test_a_shape_that_makes_no_box_rejects_its_picture(tmp_path: Path, shape: dict[str, Any], reason: str) -> None:
    whole = {"id": 1, "image_id": 7, "category_id": 0, "bbox": [1, 2, 10, 20]}
    annotated(tmp_path, annotations=[whole, {"id": 2, "image_id": 7, "category_id": 0} | shape])
    (rejection,) = (item for item in found(tmp_path) if isinstance(item, Rejection))
    assert (rejection.location, rejection.ignored) == ("set/images/a.png", False)
    assert rejection.reason.startswith("set/result.json: annotation 2: ")
    assert reason in rejection.reason


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (("a.png", 1, "b.png", 1), "'a.png' and 'b.png' have the same id 1"),
        (("a.png", 1, "b.png", "1"), "'a.png' and 'b.png' have the same id 1"),
        (("a.png", 1, "b.png", 1.0), "'a.png' and 'b.png' have the same id 1"),
        (("a.png", True, "b.png", 1), "the id 'True' is neither a whole number nor text"),
        (("a.png", None, "b.png", 1), "the id 'None' is neither a whole number nor text"),
        (("a.png", [1], "b.png", 1), "the id '[1]' is neither a whole number nor text"),
        (("a.png", 1.5, "b.png", 1), "the id '1.5' is neither"),
        (("a.png", float("inf"), "b.png", 1), "the id 'inf' is neither"),
        (("a.png", float("nan"), "b.png", 1), "the id 'nan' is neither"),
        ((None, 1, "b.png", 2), "a file_name is 'None', not text"),
        (("\ud800", 1, "b.png", 2), "a file_name is not Unicode"),
    ],
)
def test_ids_and_names_of_pictures(tmp_path: Path, images: tuple[Any, ...], message: str) -> None:
    first, first_id, second, second_id = images
    annotated(tmp_path, images=[{"id": first_id, "file_name": first}, {"id": second_id, "file_name": second}])
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        found(tmp_path)
    assert str(caught.value).startswith("params.yaml: fetch.sources.0: coco.annotations: set/result.json: ")
    assert "\n" not in str(caught.value)


def test_ids_of_categories(tmp_path: Path) -> None:
    two = [{"id": 0, "name": "cat"}, {"id": "0", "name": "dog"}, {"id": 5, "name": "dog"}]
    annotated(tmp_path, categories=two)
    with pytest.raises(UserError, match="the category id 0 is of 'cat' and of 'dog'"):
        found(tmp_path)
    annotated(tmp_path, categories=[{"id": 0, "name": "cat"}, {"id": "5", "name": "cat "}, {"id": 0, "name": "cat"}])
    assert [item.label for item in found(tmp_path) if isinstance(item, SourceImage)] == ["cat", "cat", None]


def test_a_file_listed_twice(tmp_path: Path) -> None:
    """Boxes are united, repeated ones count once; two sizes of one file contradict each other."""
    images = [{"id": n, "file_name": name} for n, name in enumerate(["a.png", "./a.png", "b.png", "b.png"])]
    annotations = [(0, [1, 2, 10, 20]), (1, [1, 2, 10, 20]), (1, [5, 6, 7, 8]), (2, [1, 2, 3, 4])]
    annotated(
        tmp_path,
        images=[image | {"width": 60, "height": 40 + (image["id"] == 3)} for image in images],
        annotations=[{"image_id": image, "category_id": 0, "bbox": bbox} for image, bbox in annotations],
    )
    first, second = found(tmp_path)
    assert isinstance(first, SourceImage)
    assert first.boxes == (SourceBox("cat", 1, 2, 11, 22), SourceBox("cat", 5, 6, 12, 14))
    assert isinstance(second, Rejection)
    assert second.reason == "it is listed twice, with different sizes"


def test_two_names_that_lead_to_one_file(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": name} for n, name in enumerate(["x/a.png", "y/a.png", "b.png"])]
    annotated(tmp_path, images=images, annotations=[])
    third, first, second = found(tmp_path)
    assert isinstance(first, Rejection)
    assert "its annotation names 'x/a.png', and 'y/a.png' leads to the same file" in first.reason
    assert isinstance(second, Rejection)
    assert isinstance(third, SourceImage)


def test_corners_in_place_of_sizes_are_told(tmp_path: Path) -> None:
    bboxes = [[1, 2, 10, 20], [30, 20, 60, 38]]
    annotations = [{"id": n, "image_id": 7, "category_id": 0, "bbox": bbox} for n, bbox in enumerate(bboxes)]
    annotated(tmp_path, annotations=annotations)
    with pytest.raises(
        UserError, match="annotation 1: 30, 20, 60, 38 reaches beyond its picture; all would fit as xmin"
    ):
        found(tmp_path)
    annotations.append({"id": 3, "image_id": 7, "category_id": 0, "bbox": [20, 20, 10, 10]})  # no corners
    annotated(tmp_path, annotations=annotations)
    assert sum(len(item.boxes) for item in found(tmp_path) if isinstance(item, SourceImage)) == 3


def test_corners_are_told_by_the_area_that_was_computed_from_them(tmp_path: Path) -> None:
    """All boxes lie within the picture either way; without `area` nothing shows which is meant."""
    bboxes = [[1, 2, 11, 12], [3, 4, 13, 30]]
    annotations: list[dict[str, Any]] = [
        {"id": n, "image_id": 7, "category_id": 0, "bbox": [x, y, right, bottom], "area": (right - x) * (bottom - y)}
        for n, (x, y, right, bottom) in enumerate(bboxes)
    ]
    annotated(tmp_path, annotations=annotations)
    with pytest.raises(UserError, match="annotation 0: 1, 2, 11, 12: the bbox is xmin, ymin, xmax, ymax by its `area`"):
        found(tmp_path)
    annotated(tmp_path, annotations=[annotations[0], annotations[1] | {"area": 13 * 30}])
    assert sum(len(item.boxes) for item in found(tmp_path) if isinstance(item, SourceImage)) == 2


@pytest.mark.parametrize(
    ("image_id", "written"), [("007", 7), (7, "007"), (3, "a.png"), (3, "a"), ("x", "set/images/a.png")]
)
def test_an_id_that_may_mean_a_picture_rejects_it(tmp_path: Path, image_id: object, written: object) -> None:
    """It is not background: also where `max_failed` lets an annotation of no picture pass."""
    name = "set/images/a.png" if image_id == "x" else "a.png"
    images = [{"id": image_id, "file_name": name}, {"id": 8, "file_name": "b.png"}]
    annotations = [{"id": 5, "image_id": written, "category_id": 0, "bbox": [1, 2, 10, 20]}]
    annotated(tmp_path, images=images, annotations=annotations)
    rejections = [item for item in found(tmp_path) if isinstance(item, Rejection)]
    assert [(item.location, item.reason) for item in rejections] == [
        (
            "set/images/a.png",
            f"set/result.json: annotation 5: no picture has its image_id {written!r}, but it may be of this one",
        )
    ]


def test_one_picture_of_two_sizes_is_not_taken_for_corners(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": "a.png", "width": 60 * n, "height": 40 * n} for n in (1, 2)]
    annotations = [{"id": n, "image_id": n, "category_id": 0, "bbox": [20 * n, 10 * n, 30 * n, 20 * n]} for n in (1, 2)]
    annotated(tmp_path, images=images, annotations=annotations)
    (only,) = found(tmp_path)
    assert isinstance(only, Rejection)
    assert only.reason == "it is listed twice, with different sizes"


def test_a_name_as_of_an_address_is_decoded_where_no_file_has_it(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": name} for n, name in ((7, "deep%2Fc.png"), (8, "a%2Epng"), (9, "50%25.png"))]
    annotations = [{"id": n, "image_id": n, "category_id": 0, "bbox": [1, 2, 10, 20]} for n in (7, 8, 9)]
    put(tmp_path / "set/images/50%25.png", encoded(picture(7, (60, 40))))
    annotated(tmp_path, images=images, annotations=annotations)
    places = {item.location: len(item.boxes) for item in found(tmp_path) if isinstance(item, SourceImage)}
    assert places == {"set/images/deep/c.png": 1, "set/images/a.png": 1, "set/images/50%25.png": 1}


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_boxes_round_masks_are_those_of_pycocotools(height: int, width: int, data: st.DataObject) -> None:
    pixels = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    runs = [0] if pixels[0] else []
    runs += [len(list(group)) for _, group in itertools.groupby(pixels)]
    mask = {"size": [height, width], "counts": runs}
    compressed = pycocotools.mask.frPyObjects(mask, height, width)
    as_text = compressed | {"counts": compressed["counts"].decode()}
    assert decode_coco_counts(as_text["counts"]) == runs
    if not any(pixels):
        with pytest.raises(ValueError, match="its mask is empty"):
            box_round_segmentation(mask)
        return
    x, y, w, h = pycocotools.mask.toBbox(compressed)
    assert box_round_segmentation(mask) == box_round_segmentation(as_text) == (x, y, x + w, y + h)


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
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "invalid COCO (no 'file_name' in image 1)"),
        (
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": [], "categories": [{"id": 1}]}',
            "invalid COCO (no 'name' in category 1)",
        ),
        ('{"images": [5], "annotations": [], "categories": []}', "images: entry 1 is not an object in braces"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 10_000, "not a JSON file"),
        ('{"images": [1], "images": [2]}', "an object has the key 'images' twice"),
        (
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{}, 7], "categories": []}',
            "annotations: entry 2 is not an object in braces",
        ),
        (
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": [], "categories": [{"id": 1, "name": null}]}',
            "a category name is 'None', not text",
        ),
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


COCO = {"coco": {"images": "p", "annotations": "a.json"}}


def exported(boxes: Drawn, data: st.DataObject) -> dict[str, Any]:
    """A COCO file of these boxes, in one of the ways in which exporters write the same thing."""
    number = data.draw(st.sampled_from([int, str, float]), "ids")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, (width, height)) in enumerate(SIZES.items()):
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for label, x, y, w, h in boxes[name]:
            shapes: list[dict[str, Any]] = [
                {"bbox": [x, y, w, h], "iscrowd": 0},
                {"bbox": [], "segmentation": [[x, y, x + w, y, x + w, y + h], [x, y, x + w / 2, y + h, x, y + h]]},
                {"bbox": [x + w / 2 - h / 2, y + h / 2 - w / 2, h, w], "attributes": {"rotation": 90.0}},
            ]
            shape = data.draw(st.sampled_from(shapes), "shape")
            category = number(LABELS.index(label))
            annotations.append({"image_id": number(image_id), "category_id": category, "id": len(annotations)} | shape)
    categories = [{"id": n, "name": label} for n, label in enumerate(LABELS)]
    return {"images": images, "annotations": annotations, "categories": categories}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(drawn(), st.data())
def test_boxes_in_are_boxes_out(tmp_path: Path, boxes: Drawn, data: st.DataObject) -> None:
    put_pictures(tmp_path / "p")
    put(tmp_path / "a.json", json.dumps(exported(boxes, data)).encode())
    assert_all(tmp_path, COCO, "p", boxes)


BAD: list[Any] = [None, True, "", "x", float("nan"), float("inf"), 10**400, [], {}, [1, 2]]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(drawn(), st.data())
def test_of_a_damaged_file_no_picture_has_fewer_boxes(tmp_path: Path, boxes: Drawn, data: st.DataObject) -> None:
    """A value in any place is dropped or replaced, an entry is listed twice, or the file is cut short."""
    put_pictures(tmp_path / "p")
    coco = exported(boxes, data)
    section = data.draw(st.sampled_from(["images", "annotations", "categories"]))
    entry = data.draw(st.sampled_from(coco[section]))
    key = data.draw(st.sampled_from(sorted(entry.keys() - {"attributes"})))  # a rotation that is lost leaves no trace
    damage = data.draw(st.sampled_from(["drop", "replace", "replace", "inside", "twice", "cut"]))
    expected = dict(boxes)
    if damage in ("drop", "replace") and (section, key) in {("images", "id"), ("images", "file_name")}:
        expected.pop(entry["file_name"])  # its annotations are of no picture, and are listed as such
    if damage in ("drop", "replace") and key == "image_id":
        expected.pop(list(SIZES)[int(entry[key])])
    if damage == "drop":
        del entry[key]
    elif damage == "replace" and key != "name":
        entry[key] = data.draw(st.sampled_from(BAD))
    elif damage == "inside" and entry.get("bbox"):
        entry["bbox"][data.draw(st.integers(2, 3))] = data.draw(st.sampled_from([*BAD, -5, 0]))
    elif damage == "twice" and section != "annotations":
        coco[section].append(entry | {"id": coco[section][0]["id"]})
    text = json.dumps(coco)
    text = text[: data.draw(st.integers(0, len(text) - 1))] if damage == "cut" else text
    put(tmp_path / "a.json", text.encode())
    assert_all_or_rejected(tmp_path, COCO, "p", expected)
