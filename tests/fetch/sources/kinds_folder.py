"""What `folder` makes of its folders."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fetch.kinds import Kinds, error_of
from headstart.fetch.sources.collect import collect_images
from headstart.fetch.sources.records import Rejection, SourceImage
from pictures import params, put

KINDS = Kinds("folder")
SOURCE = {"folder": "data"}


def labels(root: Path, *files: str) -> set[tuple[str | None, str | None]]:
    """Split and label of the pictures, after these files are written."""
    for name in files:
        put(root / "data" / name)
    items = collect_images(params(SOURCE).fetch, root)
    return {(item.split, item.label) for item in items if isinstance(item, SourceImage)}


def error(root: Path, *files: str) -> str:
    for name in files:
        put(root / "data" / name)
    return error_of(root, SOURCE, "classify")


@KINDS.row(
    "`__MACOSX`, `.DS_Store`, `@eaDir`, `Thumbs.db`, `$RECYCLE.BIN` and other droppings", "as if they were not there"
)
def _droppings(root: Path) -> None:
    files = (
        "train/cat/1.png",
        "test/cat/1.png",
        "__MACOSX/train/cat/._1.png",
        "@eaDir/1.png",
        "train/$RECYCLE.BIN/1.png",
    )
    assert labels(root, *files) == {("train", "cat"), ("test", "cat")}


@KINDS.row(
    "`train`, `training`, `val`, `valid`, `validation`, `test`, `testing`, also with `_set`, in any case", "splits"
)
def _splits(root: Path) -> None:
    files = ("Training_Set/cat/1.png", "valid/cat/1.png", "TESTING/cat/1.png")
    assert labels(root, *files) == {("train", "cat"), ("val", "cat"), ("test", "cat")}


@KINDS.row("`seg_train` and `seg_test` with the same folders in both", "an error with the paths to write")
def _words_of_splits(root: Path) -> None:
    files = [f"{split}/{split}/{label}/1.png" for split in ("seg_train", "seg_test") for label in ("sea", "wood")]
    assert "`folder: data/seg_test/seg_test` with `split: test`" in error(root, *files)


@KINDS.row("splits inside the class folders: `cat/train`, `cat/test`, `dog/train`", "splits, and a line that tells so")
def _inner_splits(root: Path) -> None:
    files = ("cat/train/1.png", "cat/test/1.png", "dog/train/1.png")
    assert labels(root, *files) == {("train", "cat"), ("test", "cat"), ("train", "dog")}


@KINDS.row("no `val` or no `test` in all sources", "taken from train by the split stage, and a line that tells so")
def _missing_split(root: Path) -> None:
    assert labels(root, "train/cat/1.png", "val/cat/1.png") == {("train", "cat"), ("val", "cat")}


@KINDS.row("a folder above the class folders or the splits", "an error with the path to write")
def _above(root: Path) -> None:
    assert "write `folder: data/pets`" in error(root, "pets/cat/1.png", "pets/dog/1.png")


@KINDS.row("a folder between the splits and the class folders", "an error with the paths to write")
def _between(root: Path) -> None:
    line = error(root, "train/images/cat/1.png", "test/images/cat/1.png")
    assert "`folder: data/test/images` with `split: test`" in line


@KINDS.row("split folders beside class folders", "an error; a lone flat `train` is a label, and a line tells so")
def _mixed(root: Path) -> None:
    assert labels(root, "bus/1.png", "train/1.png") == {(None, "bus"), (None, "train")}
    assert "named like splits (train) lie beside others (bus)" in error(root, "train/cat/1.png")


@KINDS.row("`café` in two spellings of Unicode; spaces around a name", "one label; left out, and a line that tells so")
def _spellings(root: Path) -> None:
    assert labels(root, "caf\u00e9/1.png", "cafe\u0301/2.png", "caf\u00e9 /3.png") == {(None, "caf\u00e9")}


@KINDS.row("a folder that cannot be read", "an error")
def _unreadable(root: Path) -> None:
    def refuse(top: Path, followlinks: bool, onerror: Callable[[OSError], None]) -> list[object]:
        onerror(PermissionError(errno.EACCES, "Permission denied", f"{top}/cat"))
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "walk", refuse)
        assert "data/cat: cannot be read (Permission denied)" in error(root, "cat/1.png")


@KINDS.row("a link to nothing", "a rejection")
def _dead_link(root: Path) -> None:
    put(root / "data/cat/1.png")
    (root / "data/dog").symlink_to("nowhere")
    lost = [item for item in collect_images(params(SOURCE).fetch, root) if isinstance(item, Rejection)]
    assert [(item.reason, item.ignored) for item in lost] == [("a link to nowhere, which is not there", False)]


@KINDS.row("class folders without pictures", "no label, and a line that tells so")
def _empty(root: Path) -> None:
    (root / "data/owl").mkdir(parents=True)
    assert labels(root, "cat/1.png", "dog/1.png") == {(None, "cat"), (None, "dog")}
