import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fetch.boxes_in_out import SIZES, Drawn, assert_all, assert_all_or_rejected, drawn, put_pictures
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


def test_a_background_picture_has_not_the_boxes_of_another_folders_file(tmp_path: Path) -> None:
    files = {
        "images/a/1.jpg": b"",
        "images/b/1.jpg": b"",
        "annotations/a/1.XML": xml(("cat", 1, 1, 2, 2), name="1.jpg"),
    }
    annotated(tmp_path, files)
    first, second = found(tmp_path)
    assert isinstance(first, SourceImage)
    assert isinstance(second, SourceImage)
    assert (first.location, first.label) == ("set/images/a/1.jpg", "cat")
    assert (second.location, second.boxes) == ("set/images/b/1.jpg", ())


@pytest.mark.parametrize(
    ("pictures", "xmls"),
    [
        (("a/1.jpg", "b/1.jpg"), ("1.xml",)),
        (("1.jpg", "1.png"), ("1.xml",)),
        (("1.jpg",), ("a/1.xml", "b/1.xml")),
        (("1.jpg",), ("1.xml", "1.XML")),
        (("a/1.jpg", "b/1.jpg"), ("other.xml",)),  # by <filename>
    ],
)
def test_pictures_whose_annotation_is_not_known_are_rejected(
    tmp_path: Path, pictures: tuple[str, ...], xmls: tuple[str, ...]
) -> None:
    annotated(tmp_path, {f"images/{name}": b"" for name in pictures})
    annotated(tmp_path, {f"annotations/{name}": xml(("cat", 1, 1, 2, 2), name="1.jpg") for name in xmls})
    rejections = found(tmp_path)
    assert [item.location for item in rejections] == [f"set/images/{name}" for name in pictures]
    for item in rejections:
        assert isinstance(item, Rejection)
        assert "may be its annotation, but there is " in item.reason


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
        (xml(("a", 1, 1, 2, 2)).replace(b"xmax", b"xmux"), "line 1: bndbox has no xmax"),
        (xml(("a", 1, 1, 2, 2)).replace(b"<xmax>2", b"<xmax>two"), "line 1: bndbox/xmax: 'two' is not a finite number"),
        (xml(("a", 1, 1, 2, 2)).replace(b"<xmax>2", b"<xmax>nan"), "bndbox/xmax: 'nan' is not a finite number"),
        (xml(("a", 1, 1, 2, 2)).replace(b"<xmax>", b"\n<xmax>3</xmax><xmax>"), "line 1: bndbox has 2 xmax"),
        (xml(("a", 1, 1, 2, 2)).replace(b"bndbox", b"polygon"), "an object without a bndbox"),
        (xml(("a", 1, 1, 2, 2)).replace(b"bndbox", b"BndBox"), "an object without a bndbox"),
        (xml(("a", 1, 1, 2, 2)).replace(b"object", b"Object"), "a box that is not in an <object>"),
        (xml(("a", 1, 1, 2, 2)).replace(b"<name>", b"<name>b</name><name>"), "an object with 2 names"),
        (xml(("a", 1, 1, 2, 2)).replace(b"annotation>", b"annotations>"), "it begins with <annotations>"),
        (xml(("a", 1, 1, 2, 2)).replace(b"<width>60", b"<width>wide"), "<size>: 'wide' is not a finite number"),
        (xml(("a", 1, 1, 2, 2))[:-40], "not an XML file"),
        (b"<?xml version='1.0' encoding='no such'?>" + xml(), "not an XML file"),
        (b"<?xml version='1.0' encoding='gbk'?>" + xml(), "multi-byte encodings are not supported"),
        (b"\xff\xfe\x00", "not an XML file"),
        (b"", "not an XML file"),
    ],
)
def test_broken_annotations_reject_their_picture(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_annotation(data)
    annotated(tmp_path, {"images/a.png": b"", "annotations/a.xml": data})
    (rejection,) = found(tmp_path)
    assert isinstance(rejection, Rejection)
    assert (rejection.location, rejection.ignored) == ("set/images/a.png", False)
    assert rejection.reason.startswith("set/annotations/a.xml: ")


def test_an_unreadable_annotation_of_no_picture_counts_too(tmp_path: Path) -> None:
    annotated(tmp_path, {"images/a.png": b"", "annotations/b.xml": b"<annotation>"})
    picture_found, rejection = found(tmp_path)
    assert isinstance(picture_found, SourceImage)
    assert isinstance(rejection, Rejection)
    assert (rejection.location, rejection.ignored) == ("set/annotations/b.xml", False)


def test_an_unreadable_annotation_finds_its_picture_by_filename(tmp_path: Path) -> None:
    annotated(tmp_path, {"images/a.png": b"", "annotations/b.xml": xml(("c", 1, 1, 2, 2), name="x\\a.png")[:-9]})
    (rejection,) = found(tmp_path)
    assert isinstance(rejection, Rejection)
    assert rejection.location == "set/images/a.png"


def test_all_boxes_of_an_object_and_none_of_its_parts(tmp_path: Path) -> None:
    part = b"<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></part>"
    second = b"<bndbox><xmin>21</xmin><ymin>11</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>"
    data = xml(("person", 1, 1, 10, 20)).replace(b"<object>", b"<object>" + part)
    data = data.replace(b"</object>", second + part + b"</object>")
    annotated(tmp_path, {"images/a.png": b"", "annotations/a.xml": data})
    (only,) = found(tmp_path)
    assert isinstance(only, SourceImage)
    assert only.boxes == (SourceBox("person", 0, 0, 10, 20), SourceBox("person", 20, 10, 30, 20))


def test_swapped_corners_are_put_right(tmp_path: Path) -> None:
    annotated(tmp_path, {"images/a.png": b"", "annotations/a.xml": xml(("cat", 30, 20, 11, 6))})
    (only,) = found(tmp_path)
    assert isinstance(only, SourceImage)
    assert only.boxes == (SourceBox("cat", 10, 5, 30, 20),)


def test_turned_boxes(tmp_path: Path) -> None:
    turned = b"<robndbox><cx>30</cx><cy>20</cy><w>20</w><h>10</h><angle>1.5707963267948966</angle></robndbox>"
    data = xml(("cat", 0, 0, 4, 4)).replace(b"</object>", turned + b"</object>")
    annotated(tmp_path, {"images/a.png": b"", "annotations/a.xml": data})
    (only,) = found(tmp_path)
    assert isinstance(only, SourceImage)
    assert only.boxes == (SourceBox("cat", 0, 0, 4, 4), SourceBox("cat", 25, 10, 35, 30))
    in_degrees = data.replace(b"1.5707963267948966", b"90")
    annotated(tmp_path, {"annotations/a.xml": in_degrees})
    (rejection,) = found(tmp_path)
    assert isinstance(rejection, Rejection)
    assert "robndbox/angle is 90, and not in radians" in rejection.reason


def test_fractions_are_scaled_by_the_annotated_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotated(tmp_path, {"images/a.png": b"", "annotations/a.xml": xml(("cat", 0.5, 0.25, 1, 0.5))})
    (only,) = found(tmp_path)
    assert isinstance(only, SourceImage)
    assert only.boxes == (SourceBox("cat", 30, 10, 60, 20),)
    assert capsys.readouterr().err == (
        "fetch: voc:set/annotations: all corners lie within 0 and 1: read as fractions of the picture\n"
    )
    annotated(tmp_path, {"annotations/a.xml": xml(("cat", 0.5, 0.25, 1, 0.5), size=(0, 0))})
    with pytest.raises(UserError, match="all corners lie within 0 and 1, and pixels are expected; no width and height"):
        found(tmp_path)


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


VOC = {"voc": {"images": "p", "annotations": "x"}}


def exported(boxes: Drawn, data: st.DataObject) -> dict[str, str]:
    """XML files of these boxes by name, corners swapped here and there."""
    files = {}
    for name, size in SIZES.items():
        corners = []
        for label, x, y, width, height in boxes[name]:
            x1, y1, x2, y2 = x + 1, y + 1, x + width, y + height
            if data.draw(st.booleans(), "swapped"):
                x1, x2 = x2, x1
            corners.append((label, x1, y1, x2, y2))
        files[f"{Path(name).stem}.xml"] = xml(*corners, size=size, name=name).decode().replace("><", ">\n<")
    return files


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(drawn(1), st.data())
def test_boxes_in_are_boxes_out(tmp_path: Path, boxes: Drawn, data: st.DataObject) -> None:
    put_pictures(tmp_path / "p")
    for name, text in exported(boxes, data).items():
        put(tmp_path / "x" / name, text.encode())
    assert_all(tmp_path, VOC, "p", boxes)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(drawn(1), st.data())
def test_of_a_damaged_file_no_picture_has_fewer_boxes(tmp_path: Path, boxes: Drawn, data: st.DataObject) -> None:
    """A line of one XML file is lost, holds something else, or stands twice, or the file is cut short."""
    put_pictures(tmp_path / "p")
    files = exported(boxes, data)
    name = data.draw(st.sampled_from(sorted(files)))
    lines = files[name].splitlines()
    at = data.draw(st.integers(0, len(lines) - 1))
    damage = data.draw(st.sampled_from(["lose", "change", "twice", "cut"]))
    tag = re.match(r"<(\w+)>", lines[at])
    if damage == "lose":
        del lines[at]
    elif damage == "twice":
        lines.insert(at, lines[at])
    elif damage == "change" and tag and tag[1] in ("xmin", "ymin", "xmax", "ymax"):
        lines[at] = (
            f"<{tag[1]}>{data.draw(st.sampled_from(['', 'x', 'nan', 'inf', '-900', '1e999', '1,5']))}</{tag[1]}>"
        )
    text = "\n".join(lines)
    files[name] = text[: data.draw(st.integers(0, len(text) - 1))] if damage == "cut" else text
    for file_name, contents in files.items():
        put(tmp_path / "x" / file_name, contents.encode())
    assert_all_or_rejected(tmp_path, VOC, "p", boxes)
