import re
from pathlib import Path

import pytest

from headstart.base.errors import UserError
from headstart.fetch.sources.collect import collect_images
from headstart.fetch.sources.records import Rejection, SourceBox, SourceImage
from pictures import encoded, fetched, params, picture, put

SOURCE = {"yolo": {"images": "set/images", "labels": "set/labels", "names": "set/data.yaml"}}


def annotated(root: Path, files: dict[str, str], names: str = "names: [cat, dog]\n") -> None:
    for name, text in {"data.yaml": names, "labels/classes.txt": "cat\ndog\n", **files}.items():
        put(root / "set" / name, text.encode())


def found(root: Path) -> list[SourceImage | Rejection]:
    return collect_images(params(SOURCE).fetch, root)


def pictures(root: Path) -> list[SourceImage]:
    return [item for item in found(root) if isinstance(item, SourceImage)]


def test_boxes_polygons_and_background(tmp_path: Path) -> None:
    files = {
        "images/a.png": "",
        "images/b.jpg": "",
        "images/c.png": "",
        "labels/a.txt": "1 0.5 0.5 0.5 0.25\r\n\r\n1 0.5 0.5 0.5 0.25\n1 0.1 0.2 0.7 0.2 0.4 0.6\n",
        "labels/b.txt": "0 0.5 0.5 1 1 0.93\n",
    }
    annotated(tmp_path, files)
    a, b, c = pictures(tmp_path)
    assert a.boxes == (SourceBox("dog", 0.25, 0.375, 0.75, 0.625), SourceBox("dog", 0.1, 0.2, 0.7, 0.6))
    assert (a.label, a.frame, a.split) == ("dog", (1, 1), None)
    assert b.boxes == (SourceBox("cat", 0, 0, 1, 1),)
    assert (c.boxes, c.label) == ((), None)
    assert len(found(tmp_path)) == 3, "classes.txt among the labels is not a label file"


def test_split_folders_pin(tmp_path: Path) -> None:
    annotated(tmp_path, {"images/train/a.png": "", "images/val/a.png": "", "labels/val/a.txt": "0 0.5 0.5 1 1\n"})
    assert [(w.split, w.label) for w in pictures(tmp_path)] == [("train", None), ("val", "cat")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data.yaml", "train: ../x\nnc: 2\nnames:\n  0: cat\n  1: dog\n"),
        ("data.yaml", "names: ['cat', 'dog']"),
        ("obj.names", "\ufeffcat\r\ndog\r\n"),
    ],
)
def test_names_of_classes(tmp_path: Path, name: str, text: str) -> None:
    annotated(tmp_path, {"images/a.png": "", "labels/a.txt": "1 0.5 0.5 1 1\n", name: text})
    source = {"yolo": {"images": "set/images", "labels": "set/labels", "names": f"set/{name}"}}
    (only,) = collect_images(params(source).fetch, tmp_path)
    assert isinstance(only, SourceImage)
    assert only.label == "dog"


def test_boxes_are_of_the_upright_picture_and_clipped(tmp_path: Path) -> None:
    files = {"a": "0 0.5 0.25 0.5 0.5\n", "b": "1 0.9 0.5 0.4 1\n", "c": "0 0.5 0.25 0.5 0.5\n0 0.5 0.5 0 0.1\n"}
    annotated(tmp_path, {f"labels/{name}.txt": text for name, text in files.items()})
    put(tmp_path / "set/images/a.png", encoded(picture(size=(60, 40)), "PNG", 6))
    put(tmp_path / "set/images/b.png", encoded(picture(size=(60, 40))))
    put(tmp_path / "set/images/c.png", encoded(picture(1, (60, 40))))
    manifest = fetched(tmp_path, SOURCE, max_failed=1)
    assert [a.bbox for a in manifest.annotations] == [(10, 0, 20, 30), (42, 0, 18, 40)]
    reason = "set/labels/c.txt: line 2: a box of width 0 and height 0.1 has no area"
    assert reason in (tmp_path / "stages/fetch/failed.csv").read_text(), (
        "its picture has no box too few: it is rejected"
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 half 1", "set/labels/a.txt: line 1: '0 0.5 0.5 half 1' is not a box: five numbers"),
        ("0 0.5 0.5", "set/labels/a.txt: line 1: 3 numbers are neither a box nor a polygon"),
        ("0 0.5 0.5 nan 1", "set/labels/a.txt: line 1: '0 0.5 0.5 nan 1' holds a number that is not finite"),
        (
            "0 320 240 64 48",
            "a.txt: line 1: 320 is not a fraction of the picture, 0 to 1; pixels must be divided by its",
        ),
        ("0 0.5 0.5 -0.2 0.1", "a.txt: line 1: a box of width -0.2 and height 0.1 has no area"),
        ("1.5 0.5 0.5 0.2 0.1", "a.txt: line 1: class 1.5 is not a class number"),
        ("-1 0.5 0.5 0.2 0.1", "a.txt: line 1: class -1 is not a class number"),
        ("0 0.5 0.5 0.2 0.1 1.57", "a.txt: line 1: 6 numbers, the last 1.57: in this set it is an angle"),
        ("0 0.5 0.5 0.2 0.1 -1 3", "a.txt: line 1: -1 is not a fraction"),
        (
            "0 .1 .1 .5 .1 .5 .5 .1",
            "a.txt: line 1: 8 numbers are neither a box nor a polygon; for a box with keypoints",
        ),
        ("0 .1 .1 .5 .1 640 480", "a.txt: line 1: 640 is not a fraction"),
        ("0 1_0 .1 .5 .1", "a.txt: line 1: '0 1_0 .1 .5 .1' is not a box"),
    ],
)
def test_an_invalid_line_rejects_its_picture(tmp_path: Path, line: str, reason: str) -> None:
    annotated(
        tmp_path, {"images/a.png": "", "labels/a.txt": line, "labels/gone.txt": "", "labels/README.txt": "Made by us"}
    )
    first, other, second = found(tmp_path)
    assert (other.kind, other.ignored) == ("other_file", True)  # type: ignore[union-attr]
    assert isinstance(first, Rejection)
    assert isinstance(second, Rejection)
    assert first.location == "set/images/a.png"
    assert reason in first.reason
    assert (second.location, second.kind) == ("set/labels/gone.txt", "missing")


@pytest.mark.parametrize(
    ("files", "names", "message"),
    [
        ({"images/a.png": "", "labels/a.txt": "2 0.5 0.5 1 1"}, "names: [cat, dog]", "line 1: class 2 has no name; "),
        (
            {"images/a.png": "", "images/b.png": "", "labels/a.txt": "2 0.5 0.5 1 1\n1 .5 .5 1 1", "labels/b.txt": ""},
            "names: [cat, dog]",
            "line 1: class 2 has no name; set/data.yaml has 2 names: the classes seem to count from 1, and YOLO counts",
        ),
        (
            {"images/a.png": "", "labels/a.txt": "2 0.5 0.5 1 1\n0 .5 .5 1 1"},
            "names: [cat, dog]",
            "line 1: class 2 has no name; set/data.yaml has 2 names: add it",
        ),
        (
            {"images/train/a.png": "", "images/train/b.png": "", "labels/a.txt": "0 .5 .5 1 1"},
            "names: [cat]",
            "yolo.labels: no label file for 2 pictures of yolo:set/labels: set/labels/train/a.txt is expected for "
            "set/images/train/a.png; put it there, or an empty file",
        ),
        ({"images/a.png": ""}, "nc: 2", "yolo.names: set/data.yaml: no list `names:` in it"),
        ({"images/a.png": ""}, "names: [", "yolo.names: set/data.yaml: no list `names:` in it"),
        ({"images/notes.txt": ""}, "names: [cat]", "yolo.images: set/images: no pictures in it"),
        ({}, "names: [cat]", "yolo.images: set/images: no such folder"),
    ],
)
def test_an_invalid_set_is_one_error_line(tmp_path: Path, files: dict[str, str], names: str, message: str) -> None:
    annotated(tmp_path, files, names)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        found(tmp_path)
    assert str(caught.value).startswith("params.yaml: fetch.sources.0: yolo.")


def test_a_missing_file_of_names(tmp_path: Path) -> None:
    annotated(tmp_path, {"images/a.png": ""})
    (tmp_path / "set/data.yaml").unlink()
    with pytest.raises(UserError, match=r"yolo\.names: set/data\.yaml: no such file; name data\.yaml"):
        found(tmp_path)
