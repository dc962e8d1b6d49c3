from pathlib import Path

from fetch.kinds import Kinds, boxes_of, error_of, rejected
from fetch.sources.test_via import BOX, RECT, SOURCE, entry, put_set, region

KINDS = Kinds("via")


@KINDS.row("rectangles, polygons, circles, ellipses", "the box round each")
def shapes(root: Path) -> None:
    put_set(root, entry(region(RECT), region({"name": "circle", "cx": 20, "cy": 15, "r": 10})))
    assert boxes_of(root, SOURCE) == {"set/images/a.png": [BOX, BOX]}


@KINDS.row("points, polylines, a region without the attribute", "the picture is rejected")
def without_box(root: Path) -> None:
    put_set(root, entry(region(RECT), region({"name": "point", "cx": 1, "cy": 2})))
    assert list(rejected(root, SOURCE)) == ["set/images/a.png"]


@KINDS.row("regions with several attributes", "an error that asks for `attribute:`")
def attributes(root: Path) -> None:
    put_set(root, entry(region(RECT, kind="cat", colour="red")))
    assert "name one: `attribute: colour`" in error_of(root, SOURCE)
