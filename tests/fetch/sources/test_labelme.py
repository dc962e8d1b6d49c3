import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetch.boxes_in_out import SIZES, Drawn, assert_all, assert_all_or_rejected, drawn, json_damage, put_pictures
from fetch.kinds import boxes_of, error_of, rejected
from headstart.fetch.sources.collect import collect_images
from headstart.fetch.sources.records import SourceImage
from pictures import encoded, params, picture, put

SOURCE = {"labelme": {"images": "set"}}
APART = {"labelme": {"images": "set/images", "annotations": "set/json"}}


def shape(kind: str, points: list[Any], label: object = "cat", **more: object) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "flags": {}, **more}


def content(*shapes: object, size: tuple[int, int] = (60, 40), name: str = "a.png", **more: object) -> bytes:
    data: dict[str, object] = {
        "version": "5.4.1",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": name,
        "imageData": None,
    }
    return json.dumps({**data, "imageHeight": size[1], "imageWidth": size[0], **more}).encode()


def put_one(root: Path, data: bytes) -> None:
    put(root / "set/a.png", encoded(picture(size=(60, 40))))
    put(root / "set/a.json", data)


@pytest.mark.parametrize(
    ("shapes", "boxes"),
    [
        ([shape("rectangle", [[30, 5], [10, 25]])], [("cat", 10, 5, 20, 20)]),
        ([shape("polygon", [[10, 5], [30, 5], [20, 25.5]])], [("cat", 10, 5, 20, 20.5)]),
        ([{"label": "cat", "points": [[10, 5], [30, 5], [20, 25]]}], [("cat", 10, 5, 20, 20)]),
        ([shape("circle", [[20, 20], [23, 24]])], [("cat", 15, 15, 10, 10)]),
        ([shape("mask", [[10, 5], [29, 24]], mask="iVBOR")], [("cat", 10, 5, 20, 20)]),
        ([shape("rotation", [[20, 5], [30, 15], [20, 25], [10, 15]])], [("cat", 10, 5, 20, 20)]),
        (
            [
                shape("polygon", [[10, 5], [15, 5], [15, 25]], group_id=1),
                shape("polygon", [[25, 5], [30, 5], [30, 25]], group_id=1),
                shape("polygon", [[40, 5], [45, 5], [45, 25]], "dog", group_id=1),
            ],
            [("cat", 10, 5, 20, 20), ("dog", 40, 5, 5, 20)],
        ),
        (
            [shape("rectangle", [[1, 1], [9, 9]], group_id=1), shape("rectangle", [[11, 1], [19, 9]], group_id=1)],
            [("cat", 1, 1, 8, 8), ("cat", 11, 1, 8, 8)],
        ),
        ([], []),
    ],
)
def test_shapes(tmp_path: Path, shapes: list[object], boxes: list[tuple[object, ...]]) -> None:
    put_one(tmp_path, content(*shapes))
    put(tmp_path / "set/unannotated.png", encoded(picture(2)))
    assert boxes_of(tmp_path, SOURCE) == {"set/a.png": boxes}
    assert rejected(tmp_path, SOURCE) == {
        "set/unannotated.png": "no annotation names it; left out, for it may show anything"
    }


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (content(shape("point", [[1, 1]])), "set/a.json: shape 1: a shape of type 'point' has no box"),
        (content(shape("linestrip", [[1, 1], [9, 9], [1, 9]])), "a shape of type 'linestrip' has no box"),
        (content(shape("rectangle", [[1, 1]])), "shape 1: a shape of type 'rectangle' with 1 points"),
        (content(shape("rectangle", [[1, 1], [9]])), "shape 1: a point is not two numbers"),
        (content(shape("rectangle", [[1, 1], [9, None]])), "shape 1: 'None' is not a finite number"),
        (content(shape("rectangle", [[1, 1], [9, float("nan")]])), "shape 1: 'nan' is not a finite number"),
        (content(shape("rectangle", [[1, 1], [9, 9]], "")), "shape 1: the label '' is not a text"),
        (content(shape("rectangle", [[1, 1], [9, 9]]), 5), "set/a.json: shape 2: it is not an object"),
        (content(shape("rectangle", [[1, 1], [1, 9]])), "has no area"),
        (content(shape("rectangle", [[1, 1], [9, 9]]), size=(50, 50)), "its boxes are for a picture of 50 x 50 pixels"),
        (content(flags={"x": True, "y": True}), "the flags x, y are all true"),
        (b"{", "set/a.json: not a JSON file"),
        (b"[]", "set/a.json: the file is not an object"),
        (b"{}", "set/a.json: `shapes` is not a list"),
    ],
)
def test_what_cannot_be_used_rejects_its_picture(tmp_path: Path, data: bytes, reason: str) -> None:
    put_one(tmp_path, data)
    lost = rejected(tmp_path, SOURCE)
    assert list(lost) == ["set/a.png"]
    assert reason in lost["set/a.png"]


def test_a_flag_is_the_label_of_a_picture_without_shapes(tmp_path: Path) -> None:
    put_one(tmp_path, content(flags={"cat": True, "dog": False}))
    (only,) = collect_images(params(SOURCE).fetch, tmp_path)
    assert isinstance(only, SourceImage)
    assert (only.label, only.boxes) == ("cat", ())


def test_pictures_of_the_same_name_first_then_of_image_path(tmp_path: Path) -> None:
    for number, name in enumerate(("x/1.png", "y/1.png", "renamed.png", "two.png", "two.jpg")):
        put(
            tmp_path / "set/images" / name,
            encoded(picture(number, (60, 40)), "JPEG" if name.endswith("jpg") else "PNG"),
        )
    for name, image_path, label in (
        ("x/1", "1.png", "x"),
        ("y/1", "..\\images\\x\\1.png", "y"),  # a copy whose imagePath was never updated
        ("old", "C:\\me\\renamed.png", "old"),
        ("two", "two.jpg", "two"),
        ("gone", "gone.png", "gone"),
    ):
        data = content(shape("rectangle", [[1, 1], [9, 9]], label), name=image_path)
        put(tmp_path / f"set/json/{name}.json", data)
    labels = {location: boxes[0][0] for location, boxes in boxes_of(tmp_path, APART).items()}
    assert labels == {
        "set/images/x/1.png": "x",
        "set/images/y/1.png": "y",
        "set/images/renamed.png": "old",
        "set/images/two.jpg": "two",
    }
    lost = rejected(tmp_path, APART)
    assert lost.pop("set/json/gone.json") == "no picture 'gone.png' in set/images"
    assert list(lost) == ["set/images/two.png"]


def test_two_pictures_of_one_name_and_a_folder_without_json(tmp_path: Path) -> None:
    put(tmp_path / "set/a.jpg", encoded(picture(), "JPEG"))
    assert "labelme.annotations: set: no .json file in it" in error_of(tmp_path, SOURCE)
    put_one(tmp_path, content(shape("rectangle", [[1, 1], [9, 9]]), name="b.png"))
    assert boxes_of(tmp_path, SOURCE) == {}
    assert any("have its name; take one out" in reason for reason in rejected(tmp_path, SOURCE).values())


def put_drawn(root: Path, files: Drawn) -> list[Path]:
    put_pictures(root / "set")
    paths = []
    for name, boxes in files.items():
        shapes = [shape("rectangle", [[x + w, y], [x, y + h]], label) for label, x, y, w, h in boxes]
        data = content(*shapes, size=SIZES[name], name=name)
        paths.append(put((root / "set" / name).with_suffix(".json"), data))
    return paths


@settings(max_examples=25, deadline=None)
@given(files=drawn())
def test_all_boxes_in_are_boxes_out(tmp_path_factory: pytest.TempPathFactory, files: Drawn) -> None:
    root = tmp_path_factory.mktemp("labelme")
    put_drawn(root, files)
    assert_all(root, SOURCE, "set", files)


@settings(max_examples=60, deadline=None)
@given(files=drawn(), place=st.integers(0, 500), damage=json_damage)
def test_of_damaged_files_no_box_is_lost_without_its_picture(
    tmp_path_factory: pytest.TempPathFactory, files: Drawn, place: int, damage: str
) -> None:
    root = tmp_path_factory.mktemp("labelme")
    for path in put_drawn(root, files):
        cells = re.split(r'(".*?"|[0-9.]+)', path.read_text())
        # A picture whose size or group is not known keeps its boxes; the rest of the keys must not be lost.
        at = place * 2 % len(cells) + 1 if len(cells) > 2 else 0
        cells[min(at, len(cells) - 1)] = damage
        path.write_text("".join(cells))
    assert_all_or_rejected(root, SOURCE, "set", files)
