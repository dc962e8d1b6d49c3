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
    with pytest.raises(UserError, match=r"data/t\.csv: line 2: not UTF-8 text \(byte 0xff\); save it as UTF-8"):
        found(tmp_path)


def written(root: Path, text: str) -> None:
    put(root / "data/t.csv", text.encode())


BOXED = "image,label,xmin,ymin,xmax,ymax"


def test_corners_in_fractions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        put(tmp_path / f"data/{number}.png", encoded(picture(number, (100, 50))))
    rows = [(f"{number}.png", "a", 0.2, 0.3, 0.6, 0.8) for number in range(3)]
    table(tmp_path / "data/t.csv", [BOXED.split(","), *rows])
    manifest = fetched(tmp_path, {"table": "data/t.csv"}, task="detect")
    assert [a.bbox for a in manifest.annotations] == [(20, 15, 40, 25)] * 3
    line = "fetch: table:data/t.csv: all corners lie within 0 and 1: read as fractions of the picture"
    assert capsys.readouterr().err.count(line) == 1


def test_fractions_beside_width_and_height(tmp_path: Path) -> None:
    written(tmp_path, f"{BOXED},width,height\n1.png,a,0.5,0,1,0.5,200,100\n")
    (picture,) = pictures(tmp_path)
    assert (picture.frame, picture.boxes) == ((200, 100), (SourceBox("a", 100, 0, 200, 50),))


def test_a_fraction_in_a_table_of_pixels_rejects_its_picture(tmp_path: Path) -> None:
    written(tmp_path, f"{BOXED}\n1.png,a,0.5,0,1,0.5\n2.png,a,1,2,30,40\n")
    kept, lost = sorted(found(tmp_path), key=lambda item: isinstance(item, Rejection))
    assert isinstance(kept, SourceImage)
    assert isinstance(lost, Rejection)
    assert (kept.location, lost.location) == ("2.png", "1.png")
    assert "others of the source are in pixels" in lost.reason


def test_swapped_corners_are_put_right(tmp_path: Path) -> None:
    written(tmp_path, f"{BOXED}\n1.png,a,30,2,10,40\n")
    assert pictures(tmp_path)[0].boxes == (SourceBox("a", 10, 2, 30, 40),)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("1.png,a,1,2,30,40\n1.png,a,,,,\n", "line 3 with a label and no corners, and other lines give it boxes"),
        ("1.png,,,,,\n./1.png,a,1,2,30,40\n", "line 2 with neither label nor corners, as background has, and"),
    ],
)
def test_a_box_that_is_missing_rejects_its_picture(tmp_path: Path, rows: str, reason: str) -> None:
    written(tmp_path, f"{BOXED}\n{rows}")
    (item,) = collect_images(params({"table": "data/t.csv"}).fetch, tmp_path, boxes=True)
    assert isinstance(item, Rejection)
    assert reason in item.reason


def test_two_sizes_of_one_picture_are_a_contradiction(tmp_path: Path) -> None:
    written(tmp_path, f"{BOXED},width,height\n1.png,a,1,2,3,4,50,50\n1.png,a,5,6,7,8,60,50\n")
    assert "give it the sizes" in next(item.reason for item in found(tmp_path) if isinstance(item, Rejection))


def test_splits_by_their_other_names(tmp_path: Path) -> None:
    written(tmp_path, "image,label,split\n1.png,a,Training\n2.png,a,valid\n3.png,a,TEST\n")
    assert [picture.split for picture in pictures(tmp_path)] == ["train", "val", "test"]


def test_names_as_windows_and_the_mac_write_them(tmp_path: Path) -> None:
    put(tmp_path / "data/a/cafe\u0301.png")
    written(tmp_path, "image,label\na\\caf\u00e9.png,x\n")
    assert pictures(tmp_path)[0].content == LocalFile(tmp_path / "data/a/cafe\u0301.png")


def test_an_empty_cell_of_the_group_column_is_no_group(tmp_path: Path) -> None:
    written(tmp_path, "image,label,dog\nrex_1.png,a,rex\nlucy_2.png,a,\n")
    assert [picture.group for picture in pictures(tmp_path, group_by="dog")] == ["rex", None]


def test_a_regular_expression_beside_a_column_of_groups(tmp_path: Path) -> None:
    message = "group_by: '(.+)_': the table has a column `group` as well; take out one of the two"
    for cell in ("x", ""):
        written(tmp_path, f"image,label,group\nrex_1.png,a,x\nlucy_2.png,a,{cell}\n")
        with pytest.raises(UserError, match=re.escape(message)):
            found(tmp_path, group_by="(.+)_")
    written(tmp_path, "image,label,group\nrex_1.png,a,\nlucy_2.png,a,\n")
    assert [picture.group for picture in pictures(tmp_path, group_by="(.+)_")] == ["rex", "lucy"]


def test_group_by_none_leaves_the_column_of_groups_aside(tmp_path: Path) -> None:
    written(tmp_path, "image,label,group\n1.png,a,x\n2.png,a,x\n")
    assert [picture.group for picture in pictures(tmp_path)] == ["x", "x"]
    assert [picture.group for picture in pictures(tmp_path, group_by="none")] == [None, None]
    written(tmp_path, "image,label,none\n1.png,a,x\n2.png,a,\n")
    assert [picture.group for picture in pictures(tmp_path, group_by="none")] == ["x", None], "a column of that name"


def test_the_confidence_of_an_annotator_and_further_columns_reach_the_manifest(tmp_path: Path) -> None:
    put(tmp_path / "data/1.png", seed=1)
    put(tmp_path / "data/2.png", seed=2)
    written(tmp_path, "image,label,sure,camera,group,\n1.png,a,0.75,left,g,\n2.png,b,,,,\n")
    first, second = fetched(tmp_path, {"table": "data/t.csv", "confidence": "sure"}).images
    assert (first.confidence, first.columns) == (0.75, {"sure": "0.75", "camera": "left"})
    assert (second.confidence, second.columns) == (None, None)
    assert [picture.confidence for picture in pictures(tmp_path)] == [None, None]


@pytest.mark.parametrize("cell", ["0", "1.01", "-1", "nan", "high"])
def test_a_confidence_that_is_no_probability(tmp_path: Path, cell: str) -> None:
    written(tmp_path, f"image,label,sure\n1.png,a,1\n2.png,b,{cell}\n")
    with pytest.raises(UserError) as caught:
        found(tmp_path, confidence="sure")
    assert str(caught.value) == (
        f"params.yaml: fetch.sources.0: table: data/t.csv: line 3: sure {cell!r}: a confidence is a number above 0 and "
        "at most 1; correct it, or leave the cell empty"
    )


def test_a_confidence_column_that_is_not_there(tmp_path: Path) -> None:
    written(tmp_path, "image,label\n1.png,a\n")
    with pytest.raises(UserError, match="no column 'sure', only image, label; add it or rename one"):
        found(tmp_path, confidence="sure")


def test_a_further_column_of_a_picture_of_several_rows_is_what_all_of_them_say(tmp_path: Path) -> None:
    written(tmp_path, f"{BOXED},camera,pose\n1.png,a,1,2,3,4,left,up\n1.png,a,5,6,7,8,left,down\n")
    assert pictures(tmp_path)[0].columns == (("camera", "left"),)


def test_two_confidences_of_one_picture_are_a_contradiction(tmp_path: Path) -> None:
    written(tmp_path, "image,label,sure\n1.png,a,1\n1.png,a,0.5\n")
    assert [item.reason for item in found(tmp_path, confidence="sure") if isinstance(item, Rejection)] == [
        "lines 2, 3 give it the confidences 0.5, 1.0"
    ]
