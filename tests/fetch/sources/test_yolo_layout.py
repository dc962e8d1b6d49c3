"""Exports as Ultralytics, Roboflow and labelImg lay them out: which picture has which boxes and split."""

import re
from pathlib import Path

import pytest

from headstart.base.errors import UserError
from headstart.fetch.sources.collect import collect_images
from headstart.fetch.sources.records import Rejection, SourceImage
from pictures import params, put

ROW = b"0 0.5 0.5 0.4 0.6\n"
YAML = "names: [dog]\n"


def put_export(root: Path, yaml: str | None, files: list[str], top: str = "data/export") -> None:
    """Empty pictures, label files with one row, lists of pictures as `name.txt: a, b`."""
    if yaml is not None:
        put(root / top / "data.yaml", yaml.encode())
    for file in files:
        name, _, lines = file.partition(": ")
        content = lines.replace(", ", "\n").encode() if lines else ROW if name.lower().endswith(".txt") else b""
        put(root / top / name, content)


def listed(root: Path, source: object = "data/export") -> list[SourceImage | Rejection]:
    return collect_images(params({"yolo": source}).fetch, root)


def found(root: Path, source: object = "data/export") -> dict[str, tuple[str | None, int]]:
    """Location -> split and number of boxes of every picture; nothing is rejected."""
    items = listed(root, source)
    assert not [item for item in items if isinstance(item, Rejection)]
    return {item.location: (item.split, len(item.boxes)) for item in items if isinstance(item, SourceImage)}


PAIRS = ["images/train/1.jpg", "labels/train/1.txt", "images/val/2.jpg", "labels/val/2.txt"]
ULTRALYTICS = {"data/export/images/train/1.jpg": ("train", 1), "data/export/images/val/2.jpg": ("val", 1)}
ROBOFLOW_PAIRS = ["train/images/1.jpg", "train/labels/1.txt", "valid/images/2.jpg", "valid/labels/2.txt"]
ROBOFLOW = {"data/export/train/images/1.jpg": ("train", 1), "data/export/valid/images/2.jpg": ("val", 1)}
TESTED = {**ROBOFLOW, "data/export/test/images/3.jpg": ("test", 0)}


@pytest.mark.parametrize(
    ("yaml", "files", "expected"),
    [
        ("path: .\ntrain: images/train\nval: images/val\ntest:\n", PAIRS, ULTRALYTICS),
        ("path: ../datasets/export\ntrain: images/train\nval: images/val\n", PAIRS, ULTRALYTICS),
        ("path: /home/me/export\ntrain: images/train\nval: images/val\n", PAIRS, ULTRALYTICS),
        ("path: data/export\ntrain: images/train\nval: images/val\n", PAIRS, ULTRALYTICS),
        ("train: /content/export/images/train\nval: C:\\export\\images\\val\n", PAIRS, ULTRALYTICS),
        ("train: [images/train]\nval: [images/val]\n", PAIRS, ULTRALYTICS),
        ("", PAIRS, ULTRALYTICS),  # no keys: by the names of the folders
        ("train: ../train/images\nval: ../valid/images\n", ROBOFLOW_PAIRS, ROBOFLOW),
        ("train: train\nval: valid\n", ROBOFLOW_PAIRS, ROBOFLOW),
        ("train: train/images\nval: valid/images\ntest: test/images\n", [*ROBOFLOW_PAIRS, "test/images/3.jpg"], TESTED),
        (
            "train: train.txt\nval: val.txt\n",
            [*PAIRS, "train.txt: ./images/train/1.jpg", "val.txt: data/export/images/val/2.jpg"],
            ULTRALYTICS,
        ),
        ("train: images\nval: images\n", ["images/1.jpg", "labels/1.txt"], {"data/export/images/1.jpg": (None, 1)}),
        ("train: a\n", ["a/images/1.JPG", "a/images/1.TXT"], {"data/export/a/images/1.JPG": ("train", 1)}),
        ("train: Images\n", ["Images/1.jpg", "Labels/1.txt"], {"data/export/Images/1.jpg": ("train", 1)}),
        (
            "train: images/images\n",  # the last `images` is replaced
            ["images/images/1.jpg", "images/labels/1.txt"],
            {"data/export/images/images/1.jpg": ("train", 1)},
        ),
    ],
)
def test_exports_with_data_yaml(
    tmp_path: Path, yaml: str, files: list[str], expected: dict[str, tuple[str | None, int]]
) -> None:
    put_export(tmp_path, YAML + yaml, files)
    assert found(tmp_path) == expected
    assert found(tmp_path, "data/export/data.yaml") == expected
    assert found(tmp_path, {"data": "data/export", "task": "detect"}) == expected


def test_a_folder_with_labelimgs_classes(tmp_path: Path) -> None:
    put_export(tmp_path, None, ["images/a.jpg", "labels/a.txt", "labels/classes.txt: dog", "images/b.jpg"])
    assert found(tmp_path) == {"data/export/images/a.jpg": (None, 1), "data/export/images/b.jpg": (None, 0)}


def test_the_three_paths_with_two_splits(tmp_path: Path) -> None:
    put_export(tmp_path, YAML, PAIRS)
    parts = {"images": "data/export/images", "labels": "data/export/labels", "names": "data/export/data.yaml"}
    assert found(tmp_path, parts) == ULTRALYTICS
    put_export(tmp_path, YAML, ROBOFLOW_PAIRS, "data/r")
    both = {"images": "data/r", "labels": "data/r", "names": "data/r/data.yaml"}
    assert set(found(tmp_path, both).values()) == {("train", 1), ("val", 1)}


@pytest.mark.parametrize(
    ("yaml", "files", "message"),
    [
        ("train: images/train\nval: images/nowhere\n", PAIRS, "val: images/nowhere: no such folder; put it there or"),
        ("train: images/train\nval: data.yaml\n", PAIRS, "val: data.yaml: neither a folder nor a .txt list"),
        ("train: images\nval: images/val\n", PAIRS, "data/export/images/val/2.jpg is in train and in val; leave it in"),
        ("train: empty\n", ["empty/notes.md"], "data/export/data.yaml: no pictures where it says"),
        (
            "train: ../train/images\n",
            [*ROBOFLOW_PAIRS, "../train/images/other.jpg"],
            "train: ../train/images: is it data/export/train/images or data/train/images?",
        ),
        (None, PAIRS, "yolo.data: data/export: no data.yaml and no classes.txt in it; put the names there"),
        (None, ["export/data.yaml: names"], "did you mean data/export/export?"),
        (None, ["a.yaml: x", "b.yaml: x"], "which of a.yaml, b.yaml? name the file"),
        (None, [], "yolo.data: data/export: no such file; name the folder of the export"),
    ],
)
def test_what_is_not_clear_is_one_error(tmp_path: Path, yaml: str | None, files: list[str], message: str) -> None:
    put_export(tmp_path, None if yaml is None else YAML + yaml, files)
    with pytest.raises(UserError, match=re.escape(message)):
        listed(tmp_path)


def test_a_missing_test_set_and_labels_without_a_picture_are_listed(tmp_path: Path) -> None:
    yaml = YAML + "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
    put_export(tmp_path, yaml, [*ROBOFLOW_PAIRS, "train/labels/gone.txt", "train/labels/notes.txt: made by us"])
    rejections = [item for item in listed(tmp_path) if isinstance(item, Rejection)]
    assert [(item.location, item.kind, item.ignored) for item in rejections] == [
        ("data/export/train/labels/gone.txt", "missing", False),
        ("data/export/train/labels/notes.txt", "other_file", True),
        ("data/export/data.yaml", "missing", True),
    ]


def test_a_label_file_of_two_pictures_or_two_of_one_reject_them(tmp_path: Path) -> None:
    files = ["images/1.jpg", "images/1.png", "labels/1.txt", "images/2.jpg", "labels/2.txt", "labels/2.TXT"]
    put_export(tmp_path, YAML + "train: images\n", files)
    reasons = {item.location: item.reason for item in listed(tmp_path) if isinstance(item, Rejection)}
    assert reasons == {
        "data/export/images/1.jpg": "data/export/labels/1.txt: is the label file of data/export/images/1.png too; "
        "rename one",
        "data/export/images/1.png": "data/export/labels/1.txt: is the label file of data/export/images/1.jpg too; "
        "rename one",
        "data/export/images/2.jpg": "two label files: data/export/labels/2.TXT and data/export/labels/2.txt; take one "
        "out",
    }


@pytest.mark.parametrize("astray", ["labels/b.txt", "labels/val/b.txt", "labels/train/b.jpg.txt"])
def test_a_picture_whose_label_file_lies_elsewhere_is_no_background(tmp_path: Path, astray: str) -> None:
    """It is rejected: also where `max_failed` lets labels without a picture pass."""
    files = ["images/train/a.jpg", "labels/train/a.txt", "images/train/b.jpg", "images/train/c.jpg", astray]
    put_export(tmp_path, YAML, files)
    parts = {"images": "data/export/images", "labels": "data/export/labels", "names": "data/export/data.yaml"}
    items = listed(tmp_path, parts)
    kept = {item.location: len(item.boxes) for item in items if isinstance(item, SourceImage)}
    assert kept == {"data/export/images/train/a.jpg": 1, "data/export/images/train/c.jpg": 0}
    reasons = {item.location: item.reason for item in items if isinstance(item, Rejection)}
    assert reasons == {
        "data/export/images/train/b.jpg": f"no label file at its own place, and data/export/{astray} of its name "
        "belongs to no picture; move that",
        f"data/export/{astray}": "no picture for these labels",
    }


def test_names_in_another_case_or_unicode_form(tmp_path: Path) -> None:
    files = ["images/IMG_1.JPG", "labels/img_1.txt", "images/ha\u0308her.jpg", "labels/h\u00e4her.txt"]
    put_export(tmp_path, YAML + "train: images\n", files)
    assert [number for _, number in found(tmp_path).values()] == [1, 1]


def test_a_label_file_that_cannot_be_read_rejects_its_picture(tmp_path: Path) -> None:
    put_export(tmp_path, YAML + "train: images\n", ["images/1.jpg", "images/2.jpg"])
    put(tmp_path / "data/export/labels/1.txt", "0 0.5 0.5 0.4 0.6".encode("utf-16"))
    (tmp_path / "data/export/labels/2.txt").symlink_to("gone.txt")
    reasons = [item.reason for item in listed(tmp_path) if isinstance(item, Rejection)]
    assert reasons == [
        "data/export/labels/1.txt: not UTF-8 text; save it again",
        "data/export/labels/2.txt: cannot be read: No such file or directory",
    ]
