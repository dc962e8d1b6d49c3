import os
import re
from pathlib import Path

import pytest

from headstart.base.errors import UserError
from headstart.fetch.sources.collect import collect_images
from headstart.fetch.sources.records import Rejection, SourceImage
from pictures import fetched, params, put


def found(root: Path, **source: object) -> list[SourceImage | Rejection]:
    return collect_images(params({"folder": "data", **source}).fetch, root)


def pictures(root: Path, **source: object) -> list[SourceImage]:
    return [item for item in found(root, **source) if isinstance(item, SourceImage)]


def test_class_folders_label_their_pictures(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/1.jpg", "a/deep er/ü.JPEG", "b/1.png"):
        put(tmp_path / "data" / name)
    images = pictures(tmp_path)
    assert [(w.location, w.label, w.split) for w in images] == [
        ("data/a/1.jpg", "a", None),
        ("data/a/deep er/ü.JPEG", "a", None),
        ("data/b/1.png", "b", None),
        ("data/b/2.png", "b", None),
    ]
    assert {w.source for w in images} == {"folder:data"}


def test_split_folders_pin(tmp_path: Path) -> None:
    for name in ("train/a/1.png", "valid/a/1.png", "Test/b/1.png"):
        put(tmp_path / "data" / name)
    assert {(w.label, w.split) for w in pictures(tmp_path)} == {("a", "train"), ("a", "val"), ("b", "test")}


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("train/1.png", "bus/1.png"):
        put(tmp_path / "data" / name)
    assert [(w.label, w.split) for w in pictures(tmp_path)] == [("bus", None), ("train", None)]


def test_a_label_for_all_needs_no_class_folders(tmp_path: Path) -> None:
    put(tmp_path / "data/1.png")
    put(tmp_path / "data/a/2.png")
    assert [w.label for w in pictures(tmp_path, label="dog", split="test")] == ["dog", "dog"]
    assert {w.split for w in pictures(tmp_path, label="dog", split="test")} == {"test"}


def test_other_files_are_listed_and_hidden_ones_are_not(tmp_path: Path) -> None:
    put(tmp_path / "data/a/1.png")
    for name in ("data/a/notes.txt", "data/a/.DS_Store", "data/.git/x.png", "data/a/Thumbs.db"):
        put(tmp_path / name, b"text")
    items = found(tmp_path)
    assert [item.location for item in items] == ["data/a/1.png", "data/a/notes.txt"]
    assert [item.ignored for item in items if isinstance(item, Rejection)] == [True]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere/1.png", seed=1)
    put(tmp_path / "data/b/1.png", seed=2)
    (tmp_path / "data/a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/loop").symlink_to(tmp_path / "data")
    (tmp_path / "data/b/self.png").symlink_to(tmp_path / "data/b/self.png")
    manifest = fetched(tmp_path, {"folder": "data"}, max_failed=1)
    assert [image.label for image in manifest.images] == ["a", "b"]
    assert "self.png,cannot be read: Too many levels" in (tmp_path / "stages/fetch/failed.csv").read_text()


def test_odd_names_and_pipes(tmp_path: Path) -> None:
    names = [b"a\xff.png", b"a b'c\"d,e\n.png", "ü雪.png".encode(), b"-rf.png", b"%2e%2e.png", b"x" * 250 + b".png"]
    for label in (b"\xfe", b"b"):
        for number, name in enumerate(names):
            put(tmp_path / "data" / os.fsdecode(label) / os.fsdecode(name), seed=number)
    os.mkfifo(tmp_path / "data/b/pipe.png")
    put(tmp_path / "data/b/text\udcff.png", b"text")
    manifest = fetched(tmp_path, {"folder": "data", "limit": 14}, max_failed=2)
    assert {image.label for image in manifest.images} == {"\\udcfe", "b"}
    assert len(manifest.images) == 12
    failed = (tmp_path / "stages/fetch/failed.csv").read_text()
    assert "data/b/pipe.png,not a file" in failed
    assert "data/b/text\\udcff.png,not a picture" in failed


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "folder: data: no such folder; put it there or change the path"),
        (["data/a/notes.txt"], "folder: data: no pictures in it; put some there"),
        (["data/1.png"], "folder: data/1.png: this picture is in no class folder; make one folder for each class, or"),
        (["data/train/1.png"], "one folder for each class in data/train"),
    ],
)
def test_an_invalid_folder_is_one_error_line(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        put(tmp_path / name)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        found(tmp_path)
    assert str(caught.value).startswith("params.yaml: fetch.sources.0: ")
    assert "\n" not in str(caught.value)


def test_limit_selects_the_same_pictures_of_all_classes(tmp_path: Path) -> None:
    for label in "ab":
        for number in range(20):
            put(tmp_path / f"data/{label}/{number}.png", b"not looked at")
    first = pictures(tmp_path, limit=12)
    assert len(first) == 12
    assert {w.label for w in first} == {"a", "b"}
    assert first == pictures(tmp_path, limit=12)
    assert [w.location for w in first] == sorted(w.location for w in first)
    assert set(first) < set(pictures(tmp_path, limit=13))


def test_group_by_a_part_of_the_name(tmp_path: Path) -> None:
    for name in ("a/rex_1.png", "a/rex_2.png", "b/lucy_1.png", "b/other.png"):
        put(tmp_path / "data" / name)
    assert [w.group for w in pictures(tmp_path, group_by=r"(.+)_\d+")] == ["rex", "rex", "lucy", None]
    for wrong, words in (("rex", "has no"), ("(", "is not a regular expression"), ("(zebra)", "matches no file name")):
        with pytest.raises(UserError, match=f"group_by: .*{words}"):
            found(tmp_path, group_by=wrong)
