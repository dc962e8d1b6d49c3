import re
import sys
from pathlib import Path

import pytest

from headstart.base.errors import UserError
from headstart.fetch.sources.collect import collect_images
from headstart.fetch.sources.records import LocalFile, Rejection, SourceBox, SourceImage
from pictures import encoded, fetched, params, picture, put, table


def found(root: Path, **source: object) -> list[SourceImage | Rejection]:
    return collect_images(params({"table": "data/t.csv", **source}).fetch, root)


def pictures(root: Path, **source: object) -> list[SourceImage]:
    return [item for item in found(root, **source) if isinstance(item, SourceImage)]


def test_rows_in_their_order_with_paths_from_the_tables_own_folder(tmp_path: Path) -> None:
    rows = [("image", "label", "split", "group"), ("b/1.png", "b", "test", ""), ("a/1.png", " a ", "", "rex")]
    table(tmp_path / "data/t.csv", rows)
    first, second = pictures(tmp_path)
    assert first == SourceImage(
        "b/1.png", "table:data/t.csv", LocalFile(tmp_path / "data/b/1.png"), "b", split="test", min_side=8
    )
    assert (second.label, second.split, second.group) == ("a", None, "rex")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_what_spreadsheets_write(tmp_path: Path, delimiter: str, start: str) -> None:
    text = f'{start}label,image\r\n"d o g","a;b,c.png"\r\n'.replace(",", delimiter, 1).replace('","', f'"{delimiter}"')
    put(tmp_path / "data/t.csv", text.encode())
    assert [(w.location, w.label) for w in pictures(tmp_path)] == [("a;b,c.png", "d o g")]


def test_files_of_a_package_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "site/some_pictures/data/1.png", seed=1)
    put(tmp_path / "site/some_pictures/data/2.png", seed=2)
    put(tmp_path / "site/some_pictures/__init__.py", b"raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    images = [f"package:some_pictures/data/{number}.png" for number in (1, 2)]
    table(tmp_path / "data/t.csv", [("image", "label"), (images[0], "a"), (images[1], "b")])
    manifest = fetched(tmp_path, {"table": "data/t.csv"})
    assert [image.label for image in manifest.images] == ["a", "b"]
    assert "some_pictures" not in sys.modules


def test_rows_of_one_picture_are_its_boxes(tmp_path: Path) -> None:
    put(tmp_path / "data/1.png", encoded(picture(size=(60, 40))))
    put(tmp_path / "data/2.png", seed=2)
    header = ("image", "label", "xmin", "ymin", "xmax", "ymax")
    rows = [("1.png", "cat", 1, 2, 11, 22), ("2.png", "dog", "", "", "", ""), ("1.png", "cat", 5, 5, 99, 9)]
    table(tmp_path / "data/t.csv", [header, *rows, rows[0]])
    first, second = pictures(tmp_path)
    assert first.boxes == (SourceBox("cat", 1, 2, 11, 22), SourceBox("cat", 5, 5, 99, 9))
    assert (first.label, second.boxes, second.label) == ("cat", (), "dog")
    manifest = fetched(tmp_path, {"table": "data/t.csv"})
    assert [annotation.bbox for annotation in manifest.annotations] == [(1, 2, 10, 20), (5, 5, 55, 4)]
    assert [annotation.area for annotation in manifest.annotations] == [200, 220]


def test_width_and_height_are_the_frame_of_the_boxes(tmp_path: Path) -> None:
    header = ("image", "label", "width", "height", "xmin", "ymin", "xmax", "ymax")
    table(tmp_path / "data/t.csv", [header, ("1.png", "a", 20, 12, 1, 1, 2, 2), ("2.png", "a", "", "", 1, 1, 2, 2)])
    assert [w.frame for w in pictures(tmp_path)] == [(20, 12), None]


def test_a_repeated_row_counts_once_and_a_contradiction_is_rejected(tmp_path: Path) -> None:
    rows = [("image", "label"), ("1.png", "a"), ("1.png", "a"), ("2.png", "b"), ("2.png", "a")]
    table(tmp_path / "data/t.csv", rows)
    first, second = found(tmp_path)
    assert isinstance(first, SourceImage)
    assert isinstance(second, Rejection)
    assert (second.kind, second.reason) == ("contradiction", "lines 4, 5 give it the labels a, b")
    assert [w.label for w in pictures(tmp_path, label="all")] == ["all", "all"]


def test_other_addresses_are_not_read(tmp_path: Path) -> None:
    table(tmp_path / "data/t.csv", [("image", "label"), ("ftp://h/1.png", "a"), ("s3://bucket/1.png", "a")])
    assert [item.kind for item in found(tmp_path) if isinstance(item, Rejection)] == ["url", "url"]


def test_group_by_a_column(tmp_path: Path) -> None:
    table(tmp_path / "data/t.csv", [("image", "label", "dog"), ("1.png", "a", "rex"), ("2.png", "a", "lucy")])
    assert [w.group for w in pictures(tmp_path, group_by="dog")] == ["rex", "lucy"]
    assert [w.group for w in pictures(tmp_path, group_by="(.)")] == ["1", "2"]
    with pytest.raises(UserError, match="'dgo' names no column and has no"):
        found(tmp_path, group_by="dgo")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, "table: data/t.csv: no such file; write it, or run `dvc pull data`"),
        ([("image", "label")], "no rows in it"),
        ([], "no rows in it"),
        ([("file", "label"), ("1.png", "a")], "no column 'image', only file, label; add it or rename one"),
        ([("image", "class"), ("1.png", "a")], "no column 'label', only image, class"),
        ([("image", "label"), ("1.png", "a"), ("2.png", "")], "line 3: no label; fill in the column 'label'"),
        ([("image", "label"), ("", "a")], "line 2: no image"),
        ([("image", "label"), ("1.png",)], "line 2: no label"),
        ([("image", "label", "split"), ("1.png", "a", "dev")], "line 2: split 'dev' is none of train, val, test"),
        ([("image", "label", "xmin"), ("1.png", "a", "1")], "boxes need the columns xmin, ymin, xmax, ymax"),
        (
            [("image", "label", "xmin", "ymin", "xmax", "ymax"), ("1.png", "a", 1, 2, "three", "")],
            "line 2: xmin '1', ymin '2', xmax 'three', ymax '': four numbers make a box",
        ),
        ([("image", "label"), ("package:no_such_thing/1.png", "a")], "no package 'no_such_thing' here; pip install"),
    ],
)
def test_an_invalid_table_is_one_error_line(
    tmp_path: Path, rows: list[tuple[object, ...]] | None, message: str
) -> None:
    if rows is not None:
        table(tmp_path / "data/t.csv", rows)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        found(tmp_path)
    assert str(caught.value).startswith("params.yaml: fetch.sources.0: table: data/t.csv")
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_text(tmp_path: Path) -> None:
    put(tmp_path / "data/t.csv", b"image,label\n\xff\xfe.png,a\n")
    with pytest.raises(UserError, match=r"cannot be read as UTF-8 text"):
        found(tmp_path)
