import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetch.boxes_in_out import Drawn, assert_all, assert_all_or_rejected, damage_json, drawn, json_damage, put_pictures
from fetch.kinds import boxes_of, error_of, rejected
from headstart.fetch.sources.collect import collect_images
from headstart.fetch.sources.records import SourceImage
from pictures import encoded, params, picture, put

SOURCE: dict[str, Any] = {"via": {"images": "set/images", "annotations": "set/via.json"}}
RECT = {"name": "rect", "x": 10, "y": 5, "width": 20, "height": 20}
BOX = ("cat", 10, 5, 20, 20)


def region(shape: object, **attributes: object) -> dict[str, Any]:
    return {"shape_attributes": shape, "region_attributes": attributes or {"class": "cat"}}


def entry(*regions: object, name: str = "a.png", size: int = 1234, **more: object) -> dict[str, Any]:
    return {f"{name}{size}": {"filename": name, "size": size, "regions": list(regions), "file_attributes": {}, **more}}


def put_set(root: Path, data: object) -> None:
    put(root / "set/images/a.png", encoded(picture(size=(60, 40))))
    put(root / "set/via.json", json.dumps(data).encode())


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        (RECT, BOX),
        ({"name": "polygon", "all_points_x": [10, 30, 20], "all_points_y": [5, 5, 25]}, BOX),
        ({"name": "circle", "cx": 20, "cy": 15, "r": 10}, BOX),
        ({"name": "ellipse", "cx": 20, "cy": 15, "rx": 10, "ry": 10}, BOX),
        ({"name": "ellipse", "cx": 20, "cy": 15, "rx": 10, "ry": 5, "theta": math.pi / 2}, ("cat", 15, 5, 10, 20)),
    ],
)
def test_shapes_in_all_forms_of_the_file(tmp_path: Path, shape: object, box: tuple[object, ...]) -> None:
    first = entry(region(shape))
    version_1 = {key: {**one, "regions": {"0": region(shape)}} for key, one in first.items()}
    for data in (first, version_1, {"_via_settings": {}, "_via_img_metadata": first, "_via_attributes": {}}):
        put_set(tmp_path, data)
        ((label, *corners),) = boxes_of(tmp_path, SOURCE)["set/images/a.png"]
        assert label == box[0]
        assert corners == pytest.approx(box[1:], abs=0.002)


def test_background_and_labels_of_checkboxes(tmp_path: Path) -> None:
    put(tmp_path / "set/images/b.png", encoded(picture(2)))
    put_set(tmp_path, {**entry(region(RECT, kind={"cat": True, "dog": False})), **entry(name="b.png")})
    assert boxes_of(tmp_path, SOURCE) == {"set/images/a.png": [BOX], "set/images/b.png": []}


@pytest.mark.parametrize(
    ("regions", "reason"),
    [
        ([region({"name": "point", "cx": 1, "cy": 2})], "region 1: a region of type 'point' has no box"),
        (
            [region({"name": "polyline", "all_points_x": [1], "all_points_y": [1]})],
            "region of type 'polyline' has no box",
        ),
        ([region(RECT), region({**RECT, "width": -5})], "region 2: a rectangle of width -5 and height 20 has no area"),
        ([region({**RECT, "x": None})], "region 1: x: 'None' is not a finite number"),
        ([region({"name": "circle", "cx": 1, "cy": 2, "r": 0})], "region 1: a radius of 0"),
        ([region({"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2]})], "a polygon of 3 x and 2 y"),
        ([region(RECT), {"shape_attributes": RECT, "region_attributes": {}}], "region 2: no attribute 'class'"),
        ([region(RECT, **{"class": {"cat": True, "dog": True}})], "the attribute 'class' is cat, dog"),
        ([region({**RECT, "x": 70})], "has no area within the picture"),
        ([region(RECT), 7], "region 2 is not an object"),
        ([region(RECT), region(None)], "region 2: `shape_attributes` is not an object"),
    ],
)
def test_a_region_that_cannot_be_used_rejects_its_picture(tmp_path: Path, regions: list[Any], reason: str) -> None:
    put(tmp_path / "set/images/b.png", encoded(picture(2, (60, 40))))
    put_set(tmp_path, {**entry(*regions), **entry(region(RECT), name="b.png")})
    assert boxes_of(tmp_path, SOURCE) == {"set/images/b.png": [BOX]}
    lost = rejected(tmp_path, SOURCE)
    assert list(lost) == ["set/images/a.png"]
    assert lost["set/images/a.png"].startswith("set/via.json: a.png1234: ")
    assert reason in lost["set/images/a.png"]


def test_which_attribute_is_the_label(tmp_path: Path) -> None:
    put_set(tmp_path, entry(region(RECT, kind="cat", colour="red")))
    assert (
        "regions have the attributes colour, kind, and one must be the label; name one: `attribute: colour`"
        in error_of(tmp_path, SOURCE)
    )
    source = {"via": {**SOURCE["via"], "attribute": "kind"}}
    assert boxes_of(tmp_path, source) == {"set/images/a.png": [BOX]}
    put_set(tmp_path, entry(region(RECT, kind="cat", colour="red"), region({**RECT, "x": 1}, kind="dog", colour="")))
    assert [box[0] for box in boxes_of(tmp_path, SOURCE)["set/images/a.png"]] == ["cat", "dog"]
    wrong = {"via": {**SOURCE["via"], "attribute": "kinds"}}
    assert "no region has the attribute 'kinds'; known are colour, kind" in error_of(tmp_path, wrong)
    put_set(tmp_path, entry({"shape_attributes": RECT, "region_attributes": {}}))
    assert "regions have no attribute, and one must be the label" in error_of(tmp_path, SOURCE)
    assert boxes_of(tmp_path, {**SOURCE, "label": "cat"}) == {"set/images/a.png": [BOX]}


def test_regions_that_are_lost_are_no_background(tmp_path: Path) -> None:
    put(tmp_path / "set/images/b.png", encoded(picture(2, (60, 40))))
    put_set(tmp_path, {**entry(region(RECT), name="b.png"), **entry(regions=None)})
    assert rejected(tmp_path, SOURCE) == {"set/images/a.png": "set/via.json: a.png1234: `regions` is not a list"}


def test_file_attributes_are_labels_where_nothing_is_drawn(tmp_path: Path) -> None:
    put_set(tmp_path, entry(file_attributes={"class": "cat"}))
    (only,) = collect_images(params(SOURCE).fetch, tmp_path)
    assert isinstance(only, SourceImage)
    assert (only.label, only.boxes) == ("cat", ())


def test_pictures_of_one_name_are_told_apart_by_their_size(tmp_path: Path) -> None:
    one, two = encoded(picture(1, (60, 40))), encoded(picture(2, (60, 44)))
    put(tmp_path / "set/images/x/b.png", one)
    put(tmp_path / "set/images/y/b.png", two)
    other = region({**RECT, "x": 20})
    put_set(
        tmp_path,
        {**entry(), **entry(region(RECT), name="b.png", size=len(two)), **entry(other, name="b.png", size=len(one))},
    )
    boxes = boxes_of(tmp_path, SOURCE)
    assert (boxes["set/images/y/b.png"], boxes["set/images/x/b.png"]) == ([BOX], [("cat", 20, 5, 20, 20)])
    put_set(tmp_path, {**entry(), **entry(region(RECT), name="b.png", size=-1)})
    lost = rejected(tmp_path, SOURCE)
    assert lost["set/via.json: b.png-1"].startswith("'b.png' may be set/images/x/b.png and set/images/y/b.png")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"project": {}, "file": {}, "view": {}, "metadata": {}}, "a project of VIA 3"),
        ([], "no pictures with `regions` in it"),
        ({"a": 5}, "no pictures with `regions` in it"),
    ],
)
def test_another_file_is_one_error(tmp_path: Path, data: object, message: str) -> None:
    put_set(tmp_path, data)
    assert f"via.annotations: set/via.json: {message}" in error_of(tmp_path, SOURCE)


def put_drawn(root: Path, files: Drawn) -> Path:
    put_pictures(root / "set/images")
    data: dict[str, Any] = {}
    for name, boxes in files.items():
        shapes = [({"name": "rect", "x": x, "y": y, "width": w, "height": h}, label) for label, x, y, w, h in boxes]
        data |= entry(*(region(shape, **{"class": label}) for shape, label in shapes), name=name)
    return put(root / "set/via.json", json.dumps(data).encode())


@settings(max_examples=25, deadline=None)
@given(files=drawn())
def test_all_boxes_in_are_boxes_out(tmp_path_factory: pytest.TempPathFactory, files: Drawn) -> None:
    root = tmp_path_factory.mktemp("via")
    put_drawn(root, files)
    assert_all(root, SOURCE, "set/images", files)


@settings(max_examples=60, deadline=None)
@given(files=drawn(), place=st.integers(0, 500), damage=json_damage)
def test_of_damaged_files_no_box_is_lost_without_its_picture(
    tmp_path_factory: pytest.TempPathFactory, files: Drawn, place: int, damage: str
) -> None:
    root = tmp_path_factory.mktemp("via")
    path = put_drawn(root, files)
    damage_json(path, place, damage)
    assert_all_or_rejected(root, SOURCE, "set/images", files)
