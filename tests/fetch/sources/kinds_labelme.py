from pathlib import Path

from fetch.kinds import Kinds, boxes_of, rejected
from fetch.sources.test_labelme import SOURCE, content, put_one, shape
from pictures import encoded, picture, put

KINDS = Kinds("labelme")


@KINDS.row("rectangles, polygons, circles, masks", "the box round each; parts of one group are one box")
def shapes(root: Path) -> None:
    put_one(root, content(shape("rectangle", [[30, 5], [10, 25]]), shape("circle", [[20, 20], [23, 24]])))
    assert boxes_of(root, SOURCE) == {"set/a.png": [("cat", 10, 5, 20, 20), ("cat", 15, 15, 10, 10)]}


@KINDS.row("points, lines, a shape without a label, a broken file", "the picture is rejected")
def without_box(root: Path) -> None:
    for data in (content(shape("point", [[1, 1]])), content(shape("rectangle", [[1, 1], [5, 5]], None)), b"{"):
        put_one(root, data)
        assert list(rejected(root, SOURCE)) == ["set/a.png"]


@KINDS.row("a picture without a JSON file", "left out, and listed; a file without shapes is background")
def unannotated(root: Path) -> None:
    put_one(root, content())
    put(root / "set/b.png", encoded(picture(2)))
    assert boxes_of(root, SOURCE) == {"set/a.png": []}
    assert list(rejected(root, SOURCE)) == ["set/b.png"]
