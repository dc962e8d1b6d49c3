from pathlib import Path

from fetch.kinds import Box, Kinds, boxes_of, error_of, rejected
from pictures import encoded, picture, put

KINDS = Kinds("yolo")
SOURCE = {"yolo": "set"}
BOX = ("dog", 30, 20, 40, 60)  # of 100 x 100 pixels
ROW = "0 0.5 0.5 0.4 0.6"


def put_set(root: Path, *rows: str, yaml: str = "", split: str = "train") -> None:
    put(root / "set/data.yaml", f"names: [dog]\n{split}: images\n{yaml}".encode())
    for number, row in enumerate(rows):
        put(root / f"set/images/{number}.png", encoded(picture(number, (100, 100))))
        put(root / f"set/labels/{number}.txt", row.encode())


def all_boxes(root: Path) -> list[Box]:
    return [box for boxes in boxes_of(root, SOURCE).values() for box in boxes]


@KINDS.row("five numbers; six or seven with confidence, track id", "boxes")
def boxes(root: Path) -> None:
    for rows in ([ROW, f"{ROW} 0.93"], [f"{ROW} 12", f"{ROW} 1"], [f"{ROW} 0.93 12", f"{ROW} 0.5"]):
        put_set(root, *rows)
        assert all_boxes(root) == [BOX] * 2


@KINDS.row("outlines, oriented boxes (four corners)", "the box round each")
def outlines(root: Path) -> None:
    put_set(root, "0 0.3 0.2 0.7 0.2 0.7 0.8 0.3 0.8", "0 0.3 0.5 0.5 0.2 0.7 0.5 0.5 0.8", "0 0.3 0.2 0.7 0.2 0.5 0.8")
    assert all_boxes(root) == [BOX] * 3


@KINDS.row("rows with keypoints, `kpt_shape` in data.yaml", "the boxes of the rows")
def keypoints(root: Path) -> None:
    put_set(root, f"{ROW} 0.45 0.5 2 0.5 0.4 2", yaml="kpt_shape: [2, 3]\n")
    assert all_boxes(root) == [BOX]


@KINDS.row("rows that are outlines or keypoints, by their numbers", "an error that asks for `task:`")
def either(root: Path) -> None:
    put_set(root, f"{ROW} 0.45 0.5 0.5 0.4")
    assert "9 numbers are an outline, or a box and keypoints; say which with `task: segment`" in error_of(root, SOURCE)


@KINDS.row("pixels, NaN, a class of 1.5, a row of another length", "the picture is rejected")
def broken(root: Path) -> None:
    put_set(root, "0 320 240 64 48", f"{ROW}\n0 nan 0.5 0.4 0.6", "1.5 0.5 0.5 0.4 0.6", f"{ROW}\n0 0.5 0.5 0.4")
    assert boxes_of(root, SOURCE) == {}
    assert len(rejected(root, SOURCE)) == 4


@KINDS.row("names `no`, `1.0`, `2024-01-01` in data.yaml", "labels as they are written")
def names(root: Path) -> None:
    put_set(root, ROW, "1 0.5 0.5 0.4 0.6")
    put(root / "set/data.yaml", b"names: [no, 1.0]\ntrain: images\n")
    assert [box[0] for box in all_boxes(root)] == ["no", "1.0"]


@KINDS.row("a name twice, `nc` that disagrees, a class without a name", "an error")
def contradictions(root: Path) -> None:
    for yaml, problem in (
        ("names: [dog, dog]", "would be one"),
        ("nc: 2\nnames: [dog]", "nc: 2: but 1 names"),
        ("names: {1: dog}", "class 0 has no name"),
    ):
        put_set(root, ROW)
        put(root / "set/data.yaml", yaml.encode())
        assert problem in error_of(root, SOURCE)


@KINDS.row("two pictures of one name (1.jpg, 1.png) with one label file", "both are rejected")
def one_label_file(root: Path) -> None:
    put_set(root, ROW)
    put(root / "set/images/0.jpg", encoded(picture(9), "JPEG"))
    assert sorted(rejected(root, SOURCE)) == ["set/images/0.jpg", "set/images/0.png"]


@KINDS.row("a picture without a label file, and one of its name elsewhere", "the picture is rejected")
def label_file_elsewhere(root: Path) -> None:
    put_set(root, ROW)
    put(root / "set/images/val/1.png", encoded(picture(1)))
    put(root / "set/labels/1.txt", ROW.encode())
    parts = {"yolo": {"images": "set/images", "labels": "set/labels", "names": "set/data.yaml"}}
    assert list(boxes_of(root, parts)) == ["set/images/0.png"]
    assert sorted(rejected(root, parts)) == ["set/images/val/1.png", "set/labels/1.txt"]


@KINDS.row("no label file for any picture; most boxes leave the picture (corners, a confidence first)", "an error")
def not_yolo(root: Path) -> None:
    put_set(root, *["0 0.93 0.5 0.5 0.4 0.6"] * 3)
    assert "most boxes leave the picture" in error_of(root, SOURCE)
    for path in (root / "set/labels").iterdir():
        path.unlink()
    assert "no label file for 3 pictures of yolo:set: set/labels/0.txt is expected" in error_of(root, SOURCE)
