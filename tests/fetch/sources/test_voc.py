import re
from pathlib import Path

import pytest

from headstart.base.errors import UserError
from headstart.fetch.sources.collect import collect_images
from headstart.fetch.sources.records import Rejection, SourceBox, SourceImage
from headstart.fetch.sources.voc import parse_annotation
from pictures import encoded, fetched, params, picture, put

SOURCE = {"voc": {"images": "set/images", "annotations": "set/annotations"}}
RACCOON = Path(__file__).parents[4] / "shared/data/raccoon"


def xml(*boxes: tuple[str, float, float, float, float], size: tuple[int, int] = (60, 40), name: str = "") -> bytes:
    objects = "".join(
        f"<object><name> {label} </name><difficult>0</difficult><bndbox><ymin>{y1}</ymin><xmin>{x1}</xmin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for label, x1, y1, x2, y2 in boxes
    )
    shape = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}</filename>{shape}{objects}</annotation>".encode()


def annotated(root: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        put(root / "set" / name, data)


def found(root: Path) -> list[SourceImage | Rejection]:
    return collect_images(params(SOURCE).fetch, root)


def test_boxes_counted_from_one(tmp_path: Path) -> None:
    image = encoded(picture(size=(60, 40)))
    annotated(tmp_path, {"images/a.png": image, "annotations/a.xml": xml(("cat", 1, 1, 60, 40), ("cat", 5, 6, 7, 8))})
    (only,) = found(tmp_path)
    assert isinstance(only, SourceImage)
    assert only.boxes == (SourceBox("cat", 0, 0, 60, 40), SourceBox("cat", 4, 5, 7, 8))
    assert (only.label, only.frame, only.location) == ("cat", (60, 40), "set/images/a.png")


def test_a_set_counted_from_zero_is_recognized(tmp_path: Path) -> None:
    annotated(tmp_path, {"images/a.png": b"", "annotations/a.xml": xml(("cat", 0, 1, 60, 40), ("dog", 5, 6, 7, 8))})
    (only,) = found(tmp_path)
    assert isinstance(only, SourceImage)
    assert only.boxes == (SourceBox("cat", 0, 1, 60, 40), SourceBox("dog", 5, 6, 7, 8))
    assert only.label is None


def test_pictures_find_their_annotation_by_place_name_or_filename(tmp_path: Path) -> None:
    files = {
        "images/x/1.png": b"",
        "images/y/1.png": b"",
        "images/2.jpg": b"",
        "images/renamed.jpg": b"",
        "images/background.jpg": b"",
        "annotations/x/1.xml": xml(("x", 1, 1, 2, 2)),
        "annotations/y/1.xml": xml(("y", 1, 1, 2, 2)),
        "annotations/deep/2.xml": xml(("z", 1, 1, 2, 2), name="other.jpg"),
        "annotations/old.xml": xml(("w", 1, 1, 2, 2), name="C:/set/renamed.jpg"),
        "annotations/gone.xml": xml(("v", 1, 1, 2, 2), name="gone.jpg"),
    }
    annotated(tmp_path, files)
    items = found(tmp_path)
    labels = {Path(item.location).as_posix(): item.label for item in items if isinstance(item, SourceImage)}
    assert labels == {
        "set/images/2.jpg": "z",
        "set/images/background.jpg": None,
        "set/images/renamed.jpg": "w",
        "set/images/x/1.png": "x",
        "set/images/y/1.png": "y",
    }
    (rejection,) = (item for item in items if isinstance(item, Rejection))
    assert (rejection.location, rejection.kind) == ("set/annotations/gone.xml", "missing")


def test_exif_and_the_annotations_size(tmp_path: Path) -> None:
    turned = encoded(picture(size=(60, 40)), "PNG", 6)
    files = {
        "images/stored.png": turned,
        "images/upright.png": encoded(picture(3, (60, 40)), "PNG", 6),
        "images/unknown.png": encoded(picture(4, (60, 40)), "PNG", 6),
        "images/another.png": encoded(picture(5, (60, 40))),
        "annotations/stored.xml": xml(("a", 1, 1, 30, 10), size=(60, 40)),
        "annotations/upright.xml": xml(("b", 1, 1, 30, 10), size=(40, 60)),
        "annotations/unknown.xml": xml(("a", 1, 1, 30, 10), size=(0, 0)),
        "annotations/another.xml": xml(("a", 1, 1, 30, 10), size=(50, 50)),
    }
    annotated(tmp_path, files)
    manifest = fetched(tmp_path, SOURCE, max_failed=1)
    assert [a.bbox for a in manifest.annotations] == [(30, 0, 10, 30), (0, 0, 30, 10), (0, 0, 30, 10)]
    lines = (tmp_path / "stages/fetch/failed.csv").read_text()
    assert "its boxes are for a picture of 50 x 50 pixels, this one has 60 x 40" in lines


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<annotation>", "not an XML file"),
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "entities"),
        (xml(("", 1, 1, 2, 2)), "without a name"),
        (xml(("a", 1, 1, 2, 2)).replace(b"xmax", b"xmux"), "without four numbers"),
        (xml(("a", 1, 1, 2, 2)).replace(b"<xmax>2", b"<xmax>two"), "bndbox/xmax is 'two', not a number"),
    ],
)
def test_broken_annotations_reject_their_picture(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_annotation(data)
    annotated(tmp_path, {"images/a.png": b"", "annotations/a.xml": data})
    annotation, picture_lost = found(tmp_path)
    assert isinstance(picture_lost, Rejection)
    assert isinstance(annotation, Rejection)
    assert (picture_lost.location, picture_lost.ignored) == ("set/images/a.png", False)
    assert (annotation.location, annotation.ignored) == ("set/annotations/a.xml", True)


def test_an_invalid_set_is_one_error_line(tmp_path: Path) -> None:
    for name, message in (
        ("nothing", "voc.images: set/images: no such folder"),
        ("set/images/notes.txt", "voc.annotations: set/annotations: no such folder"),
        ("set/annotations/notes.txt", "voc.annotations: set/annotations: no .xml file in it"),
        ("set/annotations/a.xml", "voc.images: set/images: no pictures in it"),
    ):
        put(tmp_path / name, xml())
        with pytest.raises(UserError, match=re.escape(f"params.yaml: fetch.sources.0: {message}")):
            found(tmp_path)


@pytest.mark.skipif(not RACCOON.is_dir(), reason="the shared pictures are not here")
def test_a_real_set() -> None:
    source = {"voc": {"images": "images", "annotations": "annotations"}}
    items = collect_images(params(source).fetch, RACCOON)
    assert len(items) == 200
    assert sum(len(item.boxes) for item in items if isinstance(item, SourceImage)) == 217
    assert {item.label for item in items if isinstance(item, SourceImage)} == {"raccoon"}
