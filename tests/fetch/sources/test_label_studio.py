import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetch.boxes_in_out import (
    SIZES,
    Drawn,
    assert_all,
    assert_all_or_rejected,
    damage_json,
    drawn,
    json_damage,
    put_pictures,
)
from fetch.kinds import boxes_of, error_of, rejected
from headstart.fetch.sources.collect import collect_images
from headstart.fetch.sources.records import SourceImage
from pictures import encoded, params, picture, put

SOURCE = {"label_studio": {"images": "set/images", "annotations": "set/export.json"}}
RECT = {"x": 10, "y": 20, "width": 30, "height": 40}
BOX = ("cat", 20, 20, 60, 40)  # of 200 x 100 pixels


def region(kind: str, value: dict[str, Any], *labels: str, **more: object) -> dict[str, Any]:
    found = {"id": "r", "type": kind, "value": {"rotation": 0, **value, kind: list(labels) or ["cat"]}}
    return {**found, "original_width": 200, "original_height": 100, "image_rotation": 0, **more}


def task(*results: object, image: str = "/data/upload/1/0123abcd-a.png", **more: object) -> dict[str, Any]:
    annotation = {"id": 3, "was_cancelled": False, "ground_truth": False, "result": list(results)}
    return {"id": 7, "data": {"image": image}, "annotations": [annotation], "predictions": [], **more}


def put_set(root: Path, *tasks: object) -> None:
    put(root / "set/images/a.png", encoded(picture(size=(200, 100))))
    put(root / "set/export.json", json.dumps(tasks).encode())


SPLIT_RECT = [  # as <Labels> and <Rectangle> write it
    {"id": "x", "type": "rectangle", "value": RECT, "original_width": 200, "original_height": 100},
    {"id": "x", "type": "labels", "value": {**RECT, "labels": ["cat"]}, "original_width": 200, "original_height": 100},
]


@pytest.mark.parametrize(
    ("results", "box"),
    [
        ([region("rectanglelabels", RECT)], BOX),
        ([region("rectanglelabels", {**RECT, "rotation": 90})], ("cat", 0, 20, 20, 60)),  # cut at the left edge
        (
            [region("rectanglelabels", {**RECT, "x": 50, "width": 20, "height": 20, "rotation": 90})],
            ("cat", 80, 20, 20, 40),
        ),
        ([region("ellipselabels", {"x": 25, "y": 40, "radiusX": 15, "radiusY": 20})], BOX),
        ([region("ellipselabels", {"x": 25, "y": 40, "radiusX": 10, "radiusY": 30, "rotation": 90})], BOX),
        ([region("polygonlabels", {"points": [[10, 20], [40, 20], [20, 60]], "closed": True})], BOX),
        (SPLIT_RECT, BOX),
        ([region("rectanglelabels", RECT), {"type": "relation", "from_id": "r", "to_id": "r"}], BOX),
        ([region("rectanglelabels", RECT), {"id": "r", "type": "choices", "value": {"choices": ["ripe"]}}], BOX),
        ([region("rectanglelabels", RECT, original_width=100, original_height=50)], BOX),
    ],
)
def test_shapes(tmp_path: Path, results: list[Any], box: tuple[Any, ...]) -> None:
    put_set(tmp_path, task(*results))
    ((label, *corners),) = boxes_of(tmp_path, SOURCE)["set/images/a.png"]
    assert label == box[0]
    assert corners == pytest.approx(box[1:], abs=0.002)


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ([region("brushlabels", {"format": "rle", "rle": [0, 1]})], "region 1: a region drawn with 'brush' has no box"),
        (
            [region("keypointlabels", {"x": 1, "y": 2, "width": 0.5})],
            "region 1: a region drawn with 'keypoint' has no box",
        ),
        ([region("rectanglelabels", RECT, "cat", "dog")], "region 1: 2 labels, and a box has one"),
        ([{"type": "rectangle", "value": RECT}], "region 1: 0 labels, and a box has one"),
        ([region("rectanglelabels", {**RECT, "x": 320})], "region 1: 320 is not a percentage of the picture's side"),
        ([region("rectanglelabels", {**RECT, "width": 0})], "region 1: a shape of width 0 and height 40 has no area"),
        ([region("rectanglelabels", {**RECT, "x": None})], "region 1: 'None' is not a finite number"),
        ([region("rectanglelabels", {"x": 1, "y": 2})], "region 1: 'None' is not a finite number"),
        ([region("rectanglelabels", RECT, image_rotation=90)], "region 1: drawn on the picture while it was turned"),
        (
            [region("rectanglelabels", {**RECT, "rotation": 9}, original_width=None)],
            "region 1: turned, and without original_width",
        ),
        ([region("polygonlabels", {"points": [[10, 20], [40, 20]]})], "region 1: an outline of 2 points that is not"),
        ([region("polygonlabels", {"points": [[1, 2], [3, 4], [5]]})], "region 1: a point of 1 numbers"),
        (
            [region("rectanglelabels", RECT), region("rectanglelabels", RECT, original_width=20)],
            "its regions are of pictures of different sizes",
        ),
        (
            [region("rectanglelabels", RECT, to_name="left"), region("rectanglelabels", RECT, to_name="right")],
            "its regions are drawn on left and right; give each picture a task of its own",
        ),
        ([region("rectanglelabels", RECT, original_width=100)], "its boxes are for a picture of 100 x 100 pixels"),
        ([7], "result 1 is not an object"),
        ([{"type": "choices", "value": {"choices": ["a", "b"]}}], "the choices a, b, and a picture has one label"),
    ],
)
def test_what_cannot_be_used_rejects_its_picture(tmp_path: Path, results: list[Any], reason: str) -> None:
    put_set(tmp_path, task(*results))
    lost = rejected(tmp_path, SOURCE)
    assert list(lost) == ["set/images/a.png"]
    assert reason in lost["set/images/a.png"]


def test_background_open_and_skipped_tasks(tmp_path: Path) -> None:
    for name in "bcde":
        put(tmp_path / f"set/images/{name}.png", encoded(picture(ord(name), (200, 100))))
    skipped = task(image="c.png")
    skipped["annotations"][0]["was_cancelled"] = True
    predicted = task(image="d.png", annotations=[], predictions=[{"result": [region("rectanglelabels", RECT)]}])
    put_set(tmp_path, task(), task(region("rectanglelabels", RECT), image="b.png"), skipped, predicted)
    assert boxes_of(tmp_path, SOURCE) == {"set/images/a.png": [], "set/images/b.png": [BOX]}
    lost = rejected(tmp_path, SOURCE)
    assert {location: "left out" in reason for location, reason in lost.items()} == {
        f"set/images/{name}.png": True for name in "cde"
    }
    put_set(tmp_path, skipped, predicted)
    assert "label_studio.annotations: set/export.json: no task has an annotation" in error_of(tmp_path, SOURCE)


def test_annotators_agree_or_the_picture_is_rejected(tmp_path: Path) -> None:
    one, other = task(region("rectanglelabels", RECT)), task(region("rectanglelabels", {**RECT, "x": 15}))
    twice = {**one, "annotations": one["annotations"] * 2}
    put_set(tmp_path, twice)
    assert boxes_of(tmp_path, SOURCE) == {"set/images/a.png": [BOX]}
    differ = {**one, "annotations": [*one["annotations"], *other["annotations"]]}
    put_set(tmp_path, differ)
    assert "2 annotations that differ" in rejected(tmp_path, SOURCE)["set/images/a.png"]
    other["annotations"][0]["ground_truth"] = True
    put_set(tmp_path, differ)
    assert boxes_of(tmp_path, SOURCE) == {"set/images/a.png": [("cat", 30, 20, 60, 40)]}
    put_set(tmp_path, one, task(region("rectanglelabels", {**RECT, "x": 15})))
    assert "are of this picture, and differ" in rejected(tmp_path, SOURCE)["set/images/a.png"]


@pytest.mark.parametrize(
    "image",
    [
        "a.png",
        "/data/upload/1/0123abcd-a.png",
        "/data/local-files/?d=me%2Fset%2Fa.png",
        "s3://bucket/some/a.png",
        "https://me.org/pictures/a.png?token=1#x",
        "C:\\me\\a.png",
    ],
)
def test_names_of_pictures(tmp_path: Path, image: str) -> None:
    put_set(tmp_path, task(region("rectanglelabels", RECT), image=image))
    assert boxes_of(tmp_path, SOURCE) == {"set/images/a.png": [BOX]}


def test_a_name_with_and_without_its_prefix_and_in_several_folders(tmp_path: Path) -> None:
    put(tmp_path / "set/images/0123abcd-a.png", encoded(picture(1, (200, 100))))
    put(tmp_path / "set/images/x/b c.png", encoded(picture(2, (200, 100))))
    put(tmp_path / "set/images/y/b c.png", encoded(picture(3, (200, 100))))
    rect = region("rectanglelabels", RECT)
    put_set(
        tmp_path,
        task(rect),
        task(rect, image="s3://b/y/b%20c.png"),
        task(rect, image="/z/b%20c.png"),
        task(rect, image="q.png"),
    )
    assert sorted(boxes_of(tmp_path, SOURCE)) == ["set/images/0123abcd-a.png", "set/images/y/b c.png"]
    lost = [reason for reason in rejected(tmp_path, SOURCE).values() if "left out" not in reason]
    assert len(lost) == 1, "two tasks of one id"
    assert "no picture 'q.png'" in lost[0] or "'/z/b c.png' may be" in lost[0]


def test_choices_are_the_label_of_the_picture(tmp_path: Path) -> None:
    put_set(tmp_path, task({"type": "choices", "value": {"choices": ["cat"]}}))
    (only,) = collect_images(params(SOURCE).fetch, tmp_path)
    assert isinstance(only, SourceImage)
    assert (only.label, only.boxes) == ("cat", ())
    put_set(tmp_path, {"id": 1, "image": "a.png", "choice": "cat", "annotation_id": 4})
    (only,) = collect_images(params(SOURCE).fetch, tmp_path)
    assert isinstance(only, SourceImage)
    assert only.label == "cat"


def test_json_min(tmp_path: Path) -> None:
    value = {**RECT, "rotation": 0, "rectanglelabels": ["cat"], "original_width": 200, "original_height": 100}
    row = {"id": 1, "image": "/data/upload/0123abcd-a.png", "tag": [value], "annotator": 1, "annotation_id": 4}
    put(tmp_path / "set/images/b.png", encoded(picture(5)))
    put(tmp_path / "set/images/c.png", encoded(picture(6)))
    put_set(tmp_path, row, {"id": 2, "image": "b.png", "annotation_id": 5}, {"id": 3, "image": "c.png"})
    assert boxes_of(tmp_path, SOURCE) == {"set/images/a.png": [BOX], "set/images/b.png": []}
    assert "not annotated yet" in rejected(tmp_path, SOURCE)["set/images/c.png"]


@pytest.mark.parametrize("data", [{"a": 1}, [], [1], "x"])
def test_another_file_is_one_error(tmp_path: Path, data: object) -> None:
    put_set(tmp_path)
    put(tmp_path / "set/export.json", json.dumps(data).encode())
    assert "label_studio.annotations: set/export.json: no list of tasks" in error_of(tmp_path, SOURCE)


def test_a_task_without_a_picture_is_rejected(tmp_path: Path) -> None:
    put_set(tmp_path, task(region("rectanglelabels", RECT)), {**task(), "id": 8, "data": {"text": "hello"}})
    assert "no picture in its `data`" in rejected(tmp_path, SOURCE)["set/export.json: task 8"]


def put_drawn(root: Path, files: Drawn) -> Path:
    put_pictures(root / "set/images")
    tasks = []
    for number, (name, boxes) in enumerate(files.items()):
        width, height = SIZES[name]
        results = []
        for label, x, y, w, h in boxes:
            value = {"x": 100 * x / width, "y": 100 * y / height, "width": 100 * w / width, "height": 100 * h / height}
            size = {"original_width": width, "original_height": height}
            results.append(region("rectanglelabels", value, label, **size))
        tasks.append({**task(*results, image=f"/data/upload/{name}"), "id": number})
    return put(root / "set/export.json", json.dumps(tasks).encode())


@settings(max_examples=25, deadline=None)
@given(files=drawn())
def test_all_boxes_in_are_boxes_out(tmp_path_factory: pytest.TempPathFactory, files: Drawn) -> None:
    root = tmp_path_factory.mktemp("label-studio")
    put_drawn(root, files)
    assert_all(root, SOURCE, "set/images", files)


@settings(max_examples=60, deadline=None)
@given(files=drawn(), place=st.integers(0, 500), damage=json_damage)
def test_of_damaged_files_no_box_is_lost_without_its_picture(
    tmp_path_factory: pytest.TempPathFactory, files: Drawn, place: int, damage: str
) -> None:
    root = tmp_path_factory.mktemp("label-studio")
    path = put_drawn(root, files)
    damage_json(path, place, damage)
    assert_all_or_rejected(root, SOURCE, "set/images", files)
