import errno
import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.base.errors import UserError
from headstart.fetch.sources.collect import collect_images
from headstart.fetch.sources.paths import SPLIT_OF_FOLDER
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


def test_a_class_may_be_called_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train/1.png", "bus/1.png"):
        put(tmp_path / "data" / name)
    assert [(w.label, w.split) for w in pictures(tmp_path)] == [("bus", None), ("train", None)]
    assert "fetch: folder: data/train: read as a label, beside bus; if it is a split" in capsys.readouterr().err


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


def test_what_systems_leave_has_no_say(tmp_path: Path) -> None:
    for name in ("train/a/1.png", "test/b/1.png"):
        put(tmp_path / "data" / name)
    droppings = ("__MACOSX/train/a/._1.png", "@eaDir/1.png", ".ipynb_checkpoints/1.png", "$RECYCLE.BIN/1.png")
    for name in (*droppings, "System Volume Information/1.png", "train/@eaDir/1.png", "train/a/._1.png", ".DS_Store"):
        put(tmp_path / "data" / name, b"not a picture")
    assert [(item.location, getattr(item, "label", None)) for item in found(tmp_path)] == [
        ("data/test/b/1.png", "b"),
        ("data/train/a/1.png", "a"),
    ]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("training_set", "test_set"), {"train", "test"}),
        (("TRAIN", "Validation", "testing_set"), {"train", "val", "test"}),
        (("train_set", "validation_set", "testset"), {"train", "val", "test"}),
        (("training", "valid", "Testing"), {"train", "val", "test"}),
    ],
)
def test_names_of_splits(tmp_path: Path, names: tuple[str, ...], splits: set[str]) -> None:
    for name in names:
        put(tmp_path / f"data/{name}/a/1.png")
        put(tmp_path / f"data/{name}/b/1.png")
    assert {w.split for w in pictures(tmp_path)} == splits
    assert {w.label for w in pictures(tmp_path)} == {"a", "b"}


def test_a_folder_without_pictures_is_neither_split_nor_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train/a/1.png", "test/a/1.png"):
        put(tmp_path / "data" / name)
    put(tmp_path / "data/docs/readme.txt", b"text")
    (tmp_path / "data/train/b").mkdir()
    assert {(w.label, w.split) for w in pictures(tmp_path)} == {("a", "train"), ("a", "test")}
    assert "fetch: folder: no picture in data/docs, data/train/b: not read as a label" in capsys.readouterr().err


def test_splits_inside_the_class_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a/train/1.png", "a/test/2.png", "b/train/3.png"):
        put(tmp_path / "data" / name)
    assert {(w.label, w.split) for w in pictures(tmp_path)} == {("a", "train"), ("a", "test"), ("b", "train")}
    assert "splits are read from the folders inside the class folders" in capsys.readouterr().err


def test_the_same_folders_in_each_class_folder_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("2021/cat/1.png", "2021/dog/2.png", "2022/cat/3.png", "2022/dog/4.png"):
        put(tmp_path / "data" / name)
    assert {w.label for w in pictures(tmp_path)} == {"2021", "2022"}
    assert "labels are 2021, 2022; the folders cat, dog in each of them do not count" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("pets/cat/1.png", "pets/dog/1.png"), "write `folder: data/pets`, or `label:` if"),
        (("a/b/train/cat/1.png", "a/b/test/dog/1.png"), "in the one folder a, which would be their label, and the"),
        (("a/b/train/cat/1.png", "a/b/test/dog/1.png"), "write `folder: data/a/b`"),
        (("set/train/cat/1.png", "set/test/dog/1.png"), "write `folder: data/set`"),
        (("set/train/cat/1.png", "set/train/dog/1.png"), "write `folder: data/set`"),
        (("pets/cat/1.png",), "write `folder: data/pets`"),
        (
            ("train/images/cat/1.png", "test/images/dog/1.png"),
            "all pictures of test lie in the one folder images, which would be their label; move its folders up into "
            "data/test, or make each split a source of its own: `folder: data/test/images` with `split: test`",
        ),
        (("training_set/training_set/cat/1.png", "test_set/cat/1.png"), "`folder: data/training_set/training_set`"),
        (("train/a/1.png", "cat/1.png"), "folders named like splits (train) lie beside others (cat), and one kind"),
        (("test/1.png", "cat/1.png", "dog/1.png"), "folders named like splits (test) lie beside others (cat, dog)"),
        (("train/1.png", "val/1.png", "dog/1.png"), "folders named like splits (train, val) lie beside others (dog)"),
    ],
)
def test_a_layout_that_would_make_wrong_labels(tmp_path: Path, files: tuple[str, ...], message: str) -> None:
    for name in files:
        put(tmp_path / "data" / name)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        found(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("doubled", [False, True])
def test_split_words_in_names_of_folders_above_the_same_classes(tmp_path: Path, doubled: bool) -> None:
    """Kaggle's Intel scenes: seg_train/seg_train/sea, seg_test/seg_test/sea, seg_pred/seg_pred."""
    above = {name: f"{name}/{name}" if doubled else name for name in ("seg_train", "seg_test")}
    for name in (
        *(f"{path}/{label}/1.png" for path in above.values() for label in ("sea", "wood")),
        "seg_pred/x/1.png",
    ):
        put(tmp_path / "data" / name)
    with pytest.raises(UserError) as caught:
        collect_images(params({"folder": "data"}).fetch, tmp_path)
    assert str(caught.value) == (
        "params.yaml: fetch.sources.0: folder: data: seg_test, seg_train are named after splits and hold the same "
        "folders (sea, wood), but they would be the labels; name them train, val and test, with the class folders "
        f"right in them, or make each of them a source: `folder: data/{above['seg_test']}` with `split: test`"
    )


def test_labels_may_have_words_of_splits(tmp_path: Path) -> None:
    for name in ("test tube/a/1.png", "test tube/b/1.png", "train station/c/1.png", "train station/1.png"):
        put(tmp_path / "data" / name)
    items = collect_images(params({"folder": "data"}).fetch, tmp_path)
    assert {item.label for item in items if isinstance(item, SourceImage)} == {"test tube", "train station"}


def test_a_label_of_all_makes_any_level_right(tmp_path: Path) -> None:
    for name in ("set/train/x/1.png", "set/test/2.png"):
        put(tmp_path / "data" / name)
    assert {(w.label, w.split) for w in pictures(tmp_path, label="cat")} == {("cat", "train"), ("cat", "test")}


def test_a_link_that_leads_nowhere_is_rejected(tmp_path: Path) -> None:
    put(tmp_path / "data/a/1.png")
    (tmp_path / "data/b").symlink_to("/nowhere/b")
    (lost,) = [item for item in found(tmp_path) if isinstance(item, Rejection)]
    assert (lost.location, lost.reason, lost.ignored) == ("data/b", "a link to /nowhere/b, which is not there", False)


def test_a_second_way_to_a_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "data/a/1.png")
    (tmp_path / "data/b").symlink_to(tmp_path / "data/a")
    assert len(pictures(tmp_path)) == 1
    assert "data/b: the same folder as" in capsys.readouterr().err


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "data/a/1.png")
    put(tmp_path / "data/b/1.png")
    scandir = os.scandir

    def refuse(path: str | os.PathLike[str]) -> Any:
        if Path(path).name == "b":
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"fetch\.sources\.0: .*data/b: cannot be read \(Permission denied\); give"):
        found(tmp_path)


NAMES = st.sampled_from(["cat", "dog", "Cat", "train", "val", "Test", "__MACOSX", ".git", "@eaDir", "x", "train_set"])
PATHS = st.lists(st.tuples(st.lists(NAMES, max_size=4), st.integers(0, 9)), min_size=1, max_size=8, unique_by=str)


@settings(max_examples=200)
@given(PATHS)
def test_any_tree_is_read_with_labels_of_its_folders_or_is_one_error(paths: list[tuple[list[str], int]]) -> None:
    """No picture is lost, and no dropping and no split becomes a label, but a lone `train` beside classes."""
    files = ["/".join([*folders, f"{number}.png"]) for folders, number in paths]
    with TemporaryDirectory() as root:
        for name in files:
            put(Path(root) / "data" / name, b"")
        message = ""
        try:
            items = found(Path(root))
        except UserError as error:
            message = str(error)
    assert "\n" not in message
    if message:
        return
    own = {name for name in files if not {"__MACOSX", ".git", "@eaDir"} & set(name.split("/"))}
    assert {item.location.removeprefix("data/") for item in items} == own
    tops = {name.split("/")[0] for name in own}
    for item in items:
        assert isinstance(item, SourceImage)
        folders = item.location.split("/")[1:-1]
        above = int(item.split is not None and folders[0].lower() in SPLIT_OF_FOLDER)
        assert item.label == folders[above]
        if len(tops) > 1 and not above and item.label.lower() in SPLIT_OF_FOLDER:
            assert item.label == "train"


@given(st.lists(st.tuples(st.sampled_from(["", "train", "val"]), st.text("abé c", min_size=1, max_size=3))))
def test_class_folders_in_are_labels_out(classes: list[tuple[str, str]]) -> None:
    is_split = all(split for split, _ in classes)
    wanted = {(split if is_split else None, label.strip()) for split, label in classes if label.strip()}
    if not wanted:
        return
    with TemporaryDirectory() as root:
        for split, label in classes:
            if label.strip():
                put(Path(root) / "data" / (split if is_split else "") / label / "1.png", b"")
        assert {(item.split, item.label) for item in pictures(Path(root))} == wanted


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
    manifest = fetched(tmp_path, {"folder": "data", "limit": 14}, max_failed=2, allow_conflicting_labels=True)
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
