"""What `voc` makes of its files."""

from pathlib import Path

from fetch.kinds import Kinds, boxes_of, error_of, rejected
from pictures import encoded, picture, put

KINDS = Kinds("voc")
SOURCE = {"voc": {"images": "p", "annotations": "x"}}


def bndbox(*corners: float) -> str:
    names = ("xmin", "ymin", "xmax", "ymax")
    return f"<bndbox>{''.join(f'<{n}>{c}</{n}>' for n, c in zip(names, corners, strict=True))}</bndbox>"


def export(root: Path, *shapes: str, name: str = "a.xml", side: int = 40, filename: str = "") -> None:
    """One XML file, an object for each shape, and the pictures a/1.png, b/1.png and a.png."""
    objects = "\n".join(f"<object><name>cat</name>{shape}</object>" for shape in shapes)
    size = f"<size><width>{side}</width><height>24</height></size>"
    put(root / "x" / name, f"<annotation><filename>{filename}</filename>{size}\n{objects}</annotation>".encode())
    for seed, path in enumerate(("a/1.png", "b/1.png", "a.png")):
        put(root / "p" / path, encoded(picture(seed, (40, 24))))


BOX = bndbox(6, 7, 15, 14)
BACKGROUND: dict[str, list[object]] = {"p/a/1.png": [], "p/b/1.png": []}


@KINDS.row("corners", "pixels from 1, the last one included; from 0 where a box of the set begins at 0")
def _corners(root: Path) -> None:
    export(root, BOX)
    assert boxes_of(root, SOURCE)["p/a.png"] == [("cat", 5, 6, 10, 8)]
    export(root, BOX, bndbox(0, 1, 4, 4))
    assert boxes_of(root, SOURCE)["p/a.png"] == [("cat", 6, 7, 9, 7), ("cat", 0, 1, 4, 3)]


@KINDS.row("swapped corners", "put right")
def _swapped(root: Path) -> None:
    export(root, bndbox(15, 14, 6, 7))
    assert boxes_of(root, SOURCE)["p/a.png"] == [("cat", 5, 6, 10, 8)]


@KINDS.row("an object with two boxes, and with parts", "both boxes; the parts are left out")
def _two(root: Path) -> None:
    export(root, BOX + bndbox(1, 1, 3, 3) + f"<part><name>head</name>{BOX}</part>")
    assert boxes_of(root, SOURCE)["p/a.png"] == [("cat", 5, 6, 10, 8), ("cat", 0, 0, 3, 3)]


@KINDS.row("`robndbox` of roLabelImg", "the upright box round it")
def _turned(root: Path) -> None:
    turned = "<robndbox><cx>20</cx><cy>12</cy><w>10</w><h>4</h><angle>1.570796</angle></robndbox>"
    export(root, turned, bndbox(0, 0, 3, 3))
    assert boxes_of(root, SOURCE)["p/a.png"] == [("cat", 18, 7, 4, 10), ("cat", 0, 0, 3, 3)]


@KINDS.row("an object without a name or a box, a corner that is no number, half a file", "its picture rejected")
def _broken(root: Path) -> None:
    for shape in ("", bndbox(6, 7, 15, float("nan")), "<bndbox/>", "<bndbox>"):
        export(root, BOX, shape)
        (reason,) = rejected(root, SOURCE).values()
        assert reason.startswith("x/a.xml: ")
        assert boxes_of(root, SOURCE) == BACKGROUND


@KINDS.row("`b/1.jpg` without an XML file, and `a/1.xml` of `a/1.jpg`", "`b/1.jpg` is background")
def _other_folder(root: Path) -> None:
    export(root, BOX, name="a/1.xml", filename="1.png")
    assert boxes_of(root, SOURCE) == {"p/a/1.png": [("cat", 5, 6, 10, 8)], "p/b/1.png": [], "p/a.png": []}


@KINDS.row("`a/1.jpg`, `b/1.jpg` and one `1.xml`", "both rejected: whose it is is not known")
def _doubt(root: Path) -> None:
    export(root, BOX, name="1.xml")
    assert sorted(rejected(root, SOURCE)) == ["p/a/1.png", "p/b/1.png"]
    assert boxes_of(root, SOURCE) == {"p/a.png": []}


@KINDS.row("all corners within 0 and 1", "scaled by `<size>`; an error where it is 0 or missing")
def _fractions(root: Path) -> None:
    export(root, bndbox(0.5, 0.25, 0.75, 0.75))
    assert boxes_of(root, SOURCE)["p/a.png"] == [("cat", 20, 6, 10, 12)]
    export(root, bndbox(0.5, 0.25, 0.75, 0.75), side=0)
    assert "all corners lie within 0 and 1" in error_of(root, SOURCE)
