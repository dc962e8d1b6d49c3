"""Labels and groups of every kind of source: one spelling, and what looks alike is told."""

import unicodedata
from collections.abc import Mapping
from pathlib import Path

import pytest

from headstart.fetch.sources.collect import collect_images
from headstart.fetch.sources.labels import normalize_labels
from headstart.fetch.sources.records import LocalFile, Rejection, SourceBox, SourceImage
from pictures import params, put, table

NFC, NFD = "caf\u00e9", "cafe\u0301"


def labels(root: Path, *sources: Mapping[str, object]) -> set[str | None]:
    items = collect_images(params(*sources).fetch, root)
    return {item.label for item in items if isinstance(item, SourceImage)}


def test_labels_of_a_mac_and_of_others_are_one(tmp_path: Path) -> None:
    put(tmp_path / "data" / NFD / "1.png", b"")
    put(tmp_path / "data" / NFC / "2.png", b"")
    table(tmp_path / "t.csv", [("image", "label"), ("1.png", NFD), ("2.png", NFC)])
    sources = ({"folder": "data"}, {"table": "t.csv"}, {"folder": "data", "label": NFD})
    assert labels(tmp_path, *sources) == {NFC}
    assert params({"folder": "data", "label": NFD}).fetch.sources[0].label == NFC


def test_boxes_and_groups_too() -> None:
    box = SourceBox(f" {NFD}", 1, 2, 3, 4)
    (item,) = normalize_labels([SourceImage("1.png", "s", LocalFile(Path("1.png")), group=NFD, boxes=(box,))])
    assert isinstance(item, SourceImage)
    assert (item.boxes[0].label, item.group) == (NFC, NFC)
    assert unicodedata.is_normalized("NFC", item.boxes[0].label)


def test_a_box_without_a_label_rejects_its_picture() -> None:
    box = SourceBox("  ", 1, 2, 3, 4, where="line 3")
    (item,) = normalize_labels([SourceImage("1.png", "s", LocalFile(Path("1.png")), boxes=(box,))])
    assert item == Rejection("s", "1.png", "box", "line 3: a box without a label; name what it shows")


def test_labels_that_look_alike_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("cat ", "cat", "Dog", "dog", "owl"):
        put(tmp_path / "data" / folder / "1.png", b"")
    assert labels(tmp_path, {"folder": "data"}) == {"cat", "Dog", "dog", "owl"}
    assert capsys.readouterr().err.splitlines() == [
        "fetch: spaces around labels are left out: 'cat '",
        "fetch: labels that differ in upper and lower case alone stay apart: 'Dog' and 'dog'; write them alike if "
        "they are one",
    ]
    labels(tmp_path, {"folder": "data", "label": "cat"})
    assert not capsys.readouterr().err
