"""What holds for all sources: groups are one name space, and missing splits are told."""

from pathlib import Path
from typing import Any

import pytest

from headstart.fetch.sources.collect import collect_images
from headstart.fetch.sources.records import SourceImage
from pictures import fetched, params, put, table


def pictures(root: Path, *sources: dict[str, Any]) -> list[SourceImage]:
    return [item for item in collect_images(params(*sources).fetch, root) if isinstance(item, SourceImage)]


def test_groups_keep_their_names_over_all_sources(tmp_path: Path) -> None:
    for number, name in enumerate(("a/rex_1.png", "b/rex_2.png", "b/lucy_1.png")):
        put(tmp_path / "data" / name, seed=number)
    table(tmp_path / "one.csv", [("image", "label", "patient"), ("data/a/rex_1.png", "a", "rex")])
    table(tmp_path / "two.csv", [("image", "label", "group"), ("data/b/rex_2.png", "b", "rex")])
    sources = ({"table": "one.csv", "group_by": "patient"}, {"table": "two.csv"})
    manifest = fetched(tmp_path, *sources, {"folder": "data", "group_by": r"(.+)_\d"})
    assert [image.group for image in manifest.images] == ["rex", "rex", "rex", "lucy", "rex"]


def test_names_that_a_group_by_does_not_match_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a/rex_1.png", "a/other.png", "a/_2.png"):
        put(tmp_path / "data" / name, b"")
    found = pictures(tmp_path, {"folder": "data", "group_by": r"(.*)_\d"})
    assert [item.group for item in found] == [None, None, "rex"], "an empty name is no group"
    assert r"fetch: group_by: '(.*)_\\d' does not match data/a/other.png: in no group" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folders", "line"),
    [
        (("train", "val"), "pinned to train, val, none to test: the split stage takes test from train"),
        (("train", "test"), "pinned to train, test, none to val: the split stage takes val from train"),
        (("training_set",), "pinned to train, none to val or test: the split stage takes val and test from train"),
        (("train", "val", "test"), None),
        (("test",), None),
    ],
)
def test_a_missing_split_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], folders: tuple[str, ...], line: str | None
) -> None:
    for folder in folders:
        put(tmp_path / f"data/{folder}/a/1.png", b"")
        put(tmp_path / f"data/{folder}/b/1.png", b"")
    pictures(tmp_path, {"folder": "data"})
    said = capsys.readouterr().err
    assert line in said if line else not said
    put(tmp_path / "more/a/1.png", b"")
    pictures(tmp_path, {"folder": "data"}, {"folder": "more"})
    assert "pinned" not in capsys.readouterr().err, "pictures of other sources are free for any split"
