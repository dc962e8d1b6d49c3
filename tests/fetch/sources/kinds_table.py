"""What `table` makes of its file."""

from pathlib import Path

from fetch.kinds import Kinds, boxes_of, error_of, rejected
from pictures import encoded, picture, put

KINDS = Kinds("table")
SOURCE = {"table": "t.csv"}
CORNERS = "image,label,xmin,ymin,xmax,ymax"


def written(root: Path, text: str | bytes) -> None:
    """A table of a.png and b.png, of 40 x 24 pixels."""
    for seed, name in enumerate(("a.png", "b.png")):
        put(root / name, encoded(picture(seed, (40, 24))))
    put(root / "t.csv", text.encode() if isinstance(text, str) else text)


@KINDS.row("`;`, `|` or tab in place of commas, a byte order mark, UTF-16, lines that end at CR", "read")
def _spreadsheets(root: Path) -> None:
    written(root, f"\ufeff{CORNERS};\r\na.png;cat;1;2;11;12\r\n".replace(",", ";"))
    assert boxes_of(root, SOURCE) == {"a.png": [("cat", 1, 2, 10, 10)]}
    written(root, f"{CORNERS}\ra.png,cat,1,2,11,12\r".replace(",", "\t").encode("utf-16"))
    assert boxes_of(root, SOURCE) == {"a.png": [("cat", 1, 2, 10, 10)]}


@KINDS.row("an index column, also one that the header does not name; empty cells at the ends of rows", "read without")
def _index(root: Path) -> None:
    for text in (f",{CORNERS}\n0,a.png,cat,1,2,11,12\n", f"{CORNERS}\n1,a.png,cat,1,2,11,12\n"):
        written(root, text)
        assert boxes_of(root, SOURCE) == {"a.png": [("cat", 1, 2, 10, 10)]}
    written(root, f"{CORNERS}\na.png,cat,1,2,11,12,\n")
    assert boxes_of(root, SOURCE) == {"a.png": [("cat", 1, 2, 10, 10)]}


@KINDS.row("a row with more or fewer cells than the header: a comma or a line break without quotes", "an error: line N")
def _unquoted(root: Path) -> None:
    written(root, "image,label\na.png,cat\nb.png,dog, small\n")
    assert "line 3: more cells than the header names ('small' is beyond them)" in error_of(root, SOURCE, "classify")
    written(root, "image,label,split\na.png,dog\nsmall,train\n")
    assert "line 2: no split in a row of 2 cells" in error_of(root, SOURCE, "classify")


@KINDS.row("a quote that is not closed, a cell over several lines, or of over 128 kB", "an error: line N")
def _quotes(root: Path) -> None:
    written(root, 'image,label\na.png,"big cat\nb.png,dog\n')
    assert "line 2: a cell begins with a quote that is not closed" in error_of(root, SOURCE, "classify")
    written(root, 'image,label\na.png,"cat\nb.png,dog"\n')
    assert "line 2: the cell of 'label' goes on over several lines" in error_of(root, SOURCE, "classify")


@KINDS.row('`6" pot` without quotes around it, U+2028 or U+0085 in a cell', "text of the cell")
def _text(root: Path) -> None:
    written(root, f'{CORNERS}\na.png,6" pot,1,2,11,12\nb.png,a\u2028b,1,2,11,12\n')
    labels = [box[0] for boxes in boxes_of(root, SOURCE).values() for box in boxes]
    assert labels == ['6" pot', "a\u2028b"]


@KINDS.row("another encoding, a NUL character, an xlsx file, two columns of one name", "an error")
def _no_text(root: Path) -> None:
    written(root, "image,label\na.png,café\n".encode("cp1252"))
    assert "line 2: not UTF-8 text (byte 0xe9)" in error_of(root, SOURCE)
    written(root, "image,label,label\na.png,a,b\n")
    assert "two columns 'label'" in error_of(root, SOURCE)


@KINDS.row("all corners within 0 and 1", "fractions of the picture, and a line that tells so")
def _fractions(root: Path) -> None:
    written(root, f"{CORNERS}\na.png,cat,0.25,0.5,0.75,1\nb.png,,,,,\n")
    assert boxes_of(root, SOURCE) == {"a.png": [("cat", 10, 12, 20, 12)], "b.png": []}


@KINDS.row("one box within a pixel, and others in pixels", "its picture rejected")
def _fraction(root: Path) -> None:
    written(root, f"{CORNERS}\na.png,cat,0.25,0.5,0.75,1\nb.png,cat,1,2,11,12\n")
    assert "within one pixel" in rejected(root, SOURCE)["a.png"]
    assert boxes_of(root, SOURCE) == {"b.png": [("cat", 1, 2, 10, 10)]}


@KINDS.row("swapped corners; a row twice", "put right; once")
def _swapped(root: Path) -> None:
    written(root, f"{CORNERS}\na.png,cat,11,12,1,2\n./a.png,cat,1,2,11,12\n")
    assert boxes_of(root, SOURCE) == {"a.png": [("cat", 1, 2, 10, 10)]}


@KINDS.row("three corners; `width`, `height` in place of `xmax`, `ymax`", "an error")
def _three_corners(root: Path) -> None:
    written(root, f"{CORNERS}\na.png,cat,1,2,11,\n")
    assert "line 2: xmin '1', ymin '2', xmax '11', ymax ''" in error_of(root, SOURCE)
    written(root, "image,label,xmin,ymin,width,height\na.png,cat,1,2,10,10\n")
    assert "write xmax = xmin + width" in error_of(root, SOURCE)


@KINDS.row(
    "rows of one picture that differ in label (`classify`), split, group, width, height", "rejected with the lines"
)
def _contradiction(root: Path) -> None:
    written(root, "image,label\na.png,cat\na.png,dog\n")
    assert rejected(root, SOURCE, "classify") == {"a.png": "lines 2, 3 give it the labels cat, dog"}


@KINDS.row("rows of one picture, one of them without corners (`detect`)", "rejected with the lines")
def _without_corners(root: Path) -> None:
    written(root, f"{CORNERS}\na.png,cat,1,2,11,12\na.png,dog,,,,\n")
    assert "line 3 with a label and no corners" in rejected(root, SOURCE)["a.png"]
