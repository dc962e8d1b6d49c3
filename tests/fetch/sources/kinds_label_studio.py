from pathlib import Path

from fetch.kinds import Kinds, boxes_of, rejected
from fetch.sources.test_label_studio import BOX, RECT, SOURCE, put_set, region, task
from pictures import encoded, picture, put

KINDS = Kinds("label_studio")


@KINDS.row("rectangles (also turned), ellipses, outlines", "the box round each")
def shapes(root: Path) -> None:
    ellipse = region("ellipselabels", {"x": 25, "y": 40, "radiusX": 15, "radiusY": 20}, "dog")
    put_set(root, task(region("rectanglelabels", RECT), ellipse))
    assert boxes_of(root, SOURCE) == {"set/images/a.png": [BOX, ("dog", 20, 20, 60, 40)]}


@KINDS.row("brush strokes, key points, a region of two labels or of none, two pictures in a task", "rejected")
def without_box(root: Path) -> None:
    put_set(root, task(*(region("rectanglelabels", RECT, to_name=name) for name in ("left", "right"))))
    assert list(rejected(root, SOURCE)) == ["set/images/a.png"]
    put_set(root, task(region("rectanglelabels", RECT), region("brushlabels", {"format": "rle", "rle": [0, 1]})))
    assert list(rejected(root, SOURCE)) == ["set/images/a.png"]


@KINDS.row("a submitted annotation without a region", "background")
def background(root: Path) -> None:
    put_set(root, task())
    assert boxes_of(root, SOURCE) == {"set/images/a.png": []}


@KINDS.row("tasks that nobody annotated, or that were skipped; predictions alone", "left out, and listed")
def open_tasks(root: Path) -> None:
    put(root / "set/images/b.png", encoded(picture(2)))
    put_set(root, task(region("rectanglelabels", RECT)), task(image="b.png", annotations=[]))
    assert boxes_of(root, SOURCE) == {"set/images/a.png": [BOX]}
    assert list(rejected(root, SOURCE)) == ["set/images/b.png"]


@KINDS.row("several annotators", "one annotation where they agree or one is ground truth; else rejected")
def annotators(root: Path) -> None:
    first, second = task(region("rectanglelabels", RECT)), task()
    put_set(root, {**first, "annotations": [*first["annotations"], *second["annotations"]]})
    assert list(rejected(root, SOURCE)) == ["set/images/a.png"]
