"""Tables of all sorts: as tools write them, damaged, and random ones."""

import csv
import io
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.base.errors import UserError
from headstart.fetch.sources.collect import collect_images
from headstart.fetch.sources.records import Rejection, SourceBox, SourceImage
from pictures import params, put


def found(root: Path, *, boxes: bool = False, **source: Any) -> list[SourceImage | Rejection]:
    return collect_images(params({"table": "data/t.csv", **source}).fetch, root, boxes=boxes)


def pictures(root: Path, **source: Any) -> list[SourceImage]:
    return [item for item in found(root, **source) if isinstance(item, SourceImage)]


def written(root: Path, text: str) -> None:
    put(root / "data/t.csv", text.encode())


def labels(root: Path, text: str, **source: Any) -> list[tuple[str, str | None]]:
    written(root, text)
    return [(item.location, item.label) for item in pictures(root, **source)]


def error_of(root: Path, text: str | bytes, **source: Any) -> str:
    put(root / "data/t.csv", text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError) as caught:
        found(root, **source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "image,label\n1.jpg,cat\n2.jpg,dog\n",
        ",image,label\n0,1.jpg,cat\n1,2.jpg,dog\n",
        "Unnamed: 0,image,label\n0,1.jpg,cat\n1,2.jpg,dog\n",
        "image,label\n0,1.jpg,cat\n1,2.jpg,dog\n",
        '"image","label"\n"1","1.jpg","cat"\n"2","2.jpg","dog"\n',
        "image,label\n1.jpg,cat,\n2.jpg,dog,\n",
        "image,label,\n1.jpg,cat,\n2.jpg,dog,\n",
        "image,label\n1.jpg,cat\n2.jpg,dog,,\n",
        "image,label,\n1.jpg,cat\n2.jpg,dog,\n",
        "image,label\n\n1.jpg,cat\n,\n2.jpg,dog\n,,\n",
        "\nimage,label\r\n1.jpg,cat\r\n2.jpg,dog",
        "image,label\r1.jpg,cat\r2.jpg,dog\r",
        "sep=;\nimage;label\n1.jpg;cat\n2.jpg;dog\n",
        "image|label\n1.jpg|cat\n2.jpg|dog\n",
        'image,label,text\n1.jpg,cat,"one\ntwo, three"\n2.jpg,dog,\n',
        "image,label\n./1.jpg,cat\n1.jpg,cat\n2.jpg,dog\n",
    ],
)
def test_tables_as_tools_write_them(tmp_path: Path, text: str) -> None:
    read = [(location.removeprefix("./"), label) for location, label in labels(tmp_path, text)]
    assert read == [("1.jpg", "cat"), ("2.jpg", "dog")]


def test_utf_16_with_its_mark(tmp_path: Path) -> None:
    put(tmp_path / "data/t.csv", "image\tlabel\n1.jpg\tcafé\n".encode("utf-16"))
    assert [item.label for item in pictures(tmp_path)] == ["café"]


def test_separators_of_unicode_are_no_line_ends(tmp_path: Path) -> None:
    text = "image,label\n1.jpg,a\u2028b\n2.jpg,c\u0085d\n3.jpg,e\x0cf\n"
    assert labels(tmp_path, text) == [("1.jpg", "a\u2028b"), ("2.jpg", "c\u0085d"), ("3.jpg", "e\x0cf")]


def test_a_quote_within_a_cell_is_text(tmp_path: Path) -> None:
    text = 'image,label\n1.jpg,6" pot\n2.jpg,"7"" pot, blue"\n3.jpg, "pan"\n'
    assert labels(tmp_path, text) == [("1.jpg", '6" pot'), ("2.jpg", '7" pot, blue'), ("3.jpg", "pan")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label\n1.jpg,cat\n2.jpg,shoe, left\n", "line 3: more cells than the header names ('left' is beyond"),
        ("image,label\n1.jpg,a, b\n2.jpg,a, c\n", "line 2: more cells than the header names ('b' is beyond them);"),
        ("image,label,\n1.jpg,a,\n2.jpg,a, c\n", "line 3: more cells than the header names ('c' is beyond them); put"),
        ('image,label\n1.jpg,cat\n2.jpg,"dog\n3.jpg,cat\n', "line 3: a cell begins with a quote that is not closed"),
        ('image,label\n1.jpg,"a\n2.jpg,b\n3.jpg,"c\n', "line 2: a cell begins with a quote that is not closed on this"),
        ('image,label\n1.jpg,"a\n2.jpg,b"\n3.jpg,c\n', "line 2: the cell of 'label' goes on over several lines; close"),
        (
            'image,label,text\n1.jpg,a,"b\n2.jpg,b,c\n3.jpg,c,d"\n4.jpg,e,f\n',
            "line 2: the cell of 'text' goes on over several lines",
        ),
        ('image,label\n1.jpg,a\n2.jpg,"big" pot\n', "line 3: text after the closing quote of a cell; write a quote"),
        (f'image,label\n1.jpg,a\n2.jpg,"{"x" * 140_000}"\n', "line 3: a cell of over 131,072 characters begins here"),
        ("image,label\n1.jpg,a\n2.jpg,b\0\n", "line 3: a NUL character, which no text has; export the table again"),
        ("image,label\n1.jpg,café\n".encode("cp1252"), "line 2: not UTF-8 text (byte 0xe9); save it as UTF-8"),
        (b"PK\x03\x04 and more", "a spreadsheet or zip file, not text; export it as CSV"),
        (b"\xff\xfea", "damaged UTF-16 text"),
        ("image,label,label\n1.jpg,a,b\n", "two columns 'label' in the header; rename one, or take it out"),
        ("image label\n1.jpg a\n", "no column 'image', only image label; separate cells by commas, semicolons or tabs"),
        ("image,label\n1.jpg;cat\n", "line 2: no label in a row of 1 cells, and the header names 2; write empty cells"),
        ("image,label,split\n1.jpg,red\nshoe,train\n", "line 2: no split in a row of 2 cells, and the header names 3"),
        (
            "image,label,xmin,ymin,width,height\n1.jpg,a,1,2,3,4\n",
            "width, height do not stand for corners: write xmax = xmin + width, ymax = ymin + height",
        ),
        ("image,label,xmin,ymin,xmax,ymax\n1.jpg,a,1,2,3,\n", "line 2: xmin '1', ymin '2', xmax '3', ymax ''"),
        (
            "image,label,xmin,ymin,xmax,ymax,width,height\n1.jpg,a,1,2,3,4,0,5\n",
            "line 2: width '0', height '5': no size of a picture",
        ),
    ],
)
def test_a_damaged_table_is_one_error_line_with_its_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    line = error_of(tmp_path, text)
    assert message in line
    assert line.startswith("params.yaml: fetch.sources.0: table: data/t.csv: ")


def test_the_line_of_a_row_is_where_it_begins(tmp_path: Path) -> None:
    text = 'image,label,text\n1.jpg,a,"one\ntwo"\n\n2.jpg,,\n'
    assert "line 5: no label" in error_of(tmp_path, text)


HEADER = ("image", "label", "xmin", "ymin", "xmax", "ymax")
LABELS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=8)
SIDES = st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(2, 99), st.integers(2, 99))
ROWS = st.lists(st.tuples(st.integers(0, 3), LABELS, SIDES), min_size=1, max_size=8)


def drawn(rows: Sequence[tuple[int, str, tuple[int, int, int, int]]]) -> dict[str, set[SourceBox]]:
    boxes: dict[str, set[SourceBox]] = defaultdict(set)
    for number, label, (x, y, width, height) in rows:
        label = unicodedata.normalize("NFC", label)
        boxes[f"{number}.png"].add(SourceBox(label, x, y, x + width, y + height))
    return dict(boxes)


def as_csv(boxes: dict[str, set[SourceBox]], **dialect: object) -> str:
    text = io.StringIO(newline="")
    rows = [(name, b.label, b.xmin, b.ymin, b.xmax, b.ymax) for name, some in boxes.items() for b in some]
    csv.writer(text, **dialect).writerows([HEADER, *rows])  # type: ignore[arg-type]
    return text.getvalue()


def read(text: str) -> list[SourceImage | Rejection]:
    with TemporaryDirectory() as folder:
        written(Path(folder), text)
        return found(Path(folder), boxes=True)


@given(ROWS, st.sampled_from(",;|\t"), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_boxes_in_are_boxes_out(
    rows: list[tuple[int, str, tuple[int, int, int, int]]], delimiter: str, end: str, is_quoted: bool
) -> None:
    boxes = drawn(rows)
    quoting = csv.QUOTE_ALL if is_quoted else csv.QUOTE_MINIMAL
    items = read(as_csv(boxes, delimiter=delimiter, lineterminator=end, quoting=quoting))
    assert {item.location: set(item.boxes) for item in items if isinstance(item, SourceImage)} == boxes
    assert len(items) == len(boxes)


@settings(max_examples=300)
@given(ROWS, st.data())
def test_a_damaged_table_keeps_all_boxes_or_says_so(
    rows: list[tuple[int, str, tuple[int, int, int, int]]], data: st.DataObject
) -> None:
    """A delimiter, quote or line break too many or too few, anywhere."""
    boxes = drawn(rows)
    text = as_csv(boxes, lineterminator="\n")
    marks = [index for index, character in enumerate(text) if character in ',"\n']
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(text)))
        text = (
            text[:at]
            + data.draw(st.sampled_from(['"', ",", "\n", "\0", "\r", ' "', '"\n"', ",,", "\u2028"]))
            + text[at:]
        )
    else:
        at = data.draw(st.sampled_from(marks))
        text = text[:at] + text[at + 1 :]
    items: list[SourceImage | Rejection] = []
    message = ""
    try:
        items = read(text)
    except UserError as error:
        message = str(error)
    assert "\n" not in message
    if message:
        return
    names = {item.location for item in items}
    if names - set(boxes):  # no such file: fetch rejects that picture
        return
    assert names == set(boxes)
    for item in items:
        assert isinstance(item, Rejection) or len(item.boxes) >= len(boxes[item.location])
