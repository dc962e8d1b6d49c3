import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fetch.boxes_in_out import SIZES, Drawn, assert_all, assert_all_or_rejected, drawn, put_pictures
from headstart.base.errors import UserError
from headstart.fetch.sources.collect import collect_images
from headstart.fetch.sources.records import Rejection, SourceBox, SourceImage
from pictures import params, put

SOURCE = {"cvat": {"images": "set/images", "annotations": "set/annotations.xml"}}


def annotated(root: Path, *images: str, names: tuple[str, ...] = ("a.png",)) -> None:
    """An export with these `<image>` elements, one a line from line 3 on."""
    for seed, name in enumerate(names):
        put(root / "set/images" / name, seed=seed)
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations><version>1.1</version>", *images, "</annotations>"]
    put(root / "set/annotations.xml", "\n".join(lines).encode())


def image(*shapes: str, name: str = "a.png", attributes: str = 'width="40" height="24"') -> str:
    return f'<image id="0" name="{name}" {attributes}>{"".join(shapes)}</image>'


def found(root: Path) -> list[SourceImage | Rejection]:
    return collect_images(params(SOURCE).fetch, root)


BOX = '<box label="cat" occluded="0" xtl="1.5" ytl="2" xbr="11" ybr="12" z_order="0"></box>'


@pytest.mark.parametrize(
    ("shape", "corners"),
    [
        (BOX, (1.5, 2, 11, 12)),
        ('<box label=" cat " xtl="11" ytl="12" xbr="1" ybr="2"/>', (1, 2, 11, 12)),
        ('<box label="cat" xtl="10" ytl="10" xbr="20" ybr="14" rotation="90.0"/>', (13, 7, 17, 17)),
        ('<box label="cat" xtl="10" ytl="10" xbr="14" ybr="14" rotation="45"/>', (9.1716, 9.1716, 14.8284, 14.8284)),
        ('<polygon label="cat" points="5.0,6;9,7;8,12.5"/>', (5, 6, 9, 12.5)),
        ('<ellipse label="cat" cx="10" cy="12" rx="5" ry="3"/>', (5, 9, 15, 15)),
        ('<ellipse label="cat" cx="10" cy="12" rx="5" ry="3" rotation="270"/>', (7, 7, 13, 17)),
        ('<mask label="cat" rle="1, 1, 2, 2, 3" left="5" top="6" width="3" height="3"/>', (6, 6, 8, 8)),
        (
            '<cuboid label="cat" xtl1="2" ytl1="3" xbl1="2" ybl1="9" xtr1="8" ytr1="3" xbr1="8" ybr1="9" '
            'xtl2="12" ytl2="1" xbl2="12" ybl2="6" xtr2="6" ytr2="1" xbr2="6" ybr2="6"/>',
            (2, 1, 12, 9),
        ),
    ],
)
def test_shapes_give_the_box_round_them(tmp_path: Path, shape: str, corners: tuple[float, ...]) -> None:
    annotated(tmp_path, image(shape))
    (only,) = found(tmp_path)
    assert isinstance(only, SourceImage)
    (box,) = only.boxes
    assert (box.xmin, box.ymin, box.xmax, box.ymax) == pytest.approx(corners, abs=1e-4)
    assert (only.location, only.label, only.frame) == ("set/images/a.png", "cat", (40, 24))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ('<points label="cat" points="1,2;3,4"/>', "<points> has no box; draw a box, or take the shape out"),
        ('<polyline label="cat" points="1,2;3,4"/>', "<polyline> has no box"),
        ('<skeleton label="cat"><points label="1" points="1,2"/></skeleton>', "<skeleton> has no box"),
        ('<hologram label="cat"/>', "<hologram> has no box"),
        ('<box label="" xtl="1" ytl="2" xbr="3" ybr="4"/>', "a box without a label"),
        ('<box label="cat" xtl="1" ytl="2" xbr="3"/>', "a box without ybr"),
        ('<box label="cat" xtl="1" ytl="2" xbr="3" ybr="nan"/>', "a box whose ybr='nan' is not a finite number"),
        ('<box label="cat" xtl="1" ytl="2" xbr="3" ybr="4" rotation="a"/>', "a box whose rotation='a' is not"),
        ('<polygon label="cat" points="1,2;3,4"/>', "a polygon of fewer than three points"),
        ('<polygon label="cat" points="1,2;3,4;5"/>', "a polygon with the point '5', not x,y"),
        ('<polygon label="cat"/>', "a polygon with the point '', not x,y"),
        ('<ellipse label="cat" cx="10" cy="12" rx="0" ry="3"/>', "an ellipse with the half axes 0 and 3"),
        ('<mask label="cat" rle="1,2" left="5" top="6" width="3" height="3"/>', "its mask is not one of 3 x 3 pixels"),
        ('<mask label="cat" rle="9" left="5" top="6" width="3" height="3"/>', "its mask is empty"),
        ('<mask label="cat" rle="a" left="5" top="6" width="3" height="3"/>', "a mask whose rle is not whole numbers"),
    ],
)
def test_a_shape_that_has_no_box_rejects_its_picture(tmp_path: Path, shape: str, reason: str) -> None:
    annotated(tmp_path, image("\n", BOX, "\n", shape))
    (rejection,) = found(tmp_path)
    assert isinstance(rejection, Rejection)
    assert (rejection.source, rejection.location) == ("cvat:set/annotations.xml", "set/images/a.png")
    assert rejection.reason.startswith("set/annotations.xml: line 5: ")
    assert reason in rejection.reason
    assert not rejection.ignored


def test_tags_are_labels_and_subsets_are_splits(tmp_path: Path) -> None:
    names = ("Train/a.png", "Validation/a.png", "b.png", "c.png", "d.png", "e.png")
    annotated(
        tmp_path,
        image('<tag label="cat" source="manual"/>', attributes='subset="Train"'),
        image('<tag label="dog"/>', BOX, attributes='subset="Validation"'),
        image(name="b.png", attributes='subset="default"'),
        image('<tag label="cat"/><tag label="dog"/>', BOX, name="c.png"),
        image('<tag label="cat"/><tag label="dog"/>', name="d.png"),
        image(name="other/e.png", attributes=""),
        names=names,
    )
    items = found(tmp_path)
    pictures = [item for item in items if isinstance(item, SourceImage)]
    assert [(item.location, item.label, item.split, len(item.boxes)) for item in pictures] == [
        ("set/images/Train/a.png", "cat", "train", 0),
        ("set/images/Validation/a.png", "dog", "val", 1),
        ("set/images/b.png", None, None, 0),
        ("set/images/c.png", None, None, 1),
        ("set/images/e.png", None, None, 0),
    ]
    (rejection,) = (item for item in items if isinstance(item, Rejection))
    assert rejection.reason == "it has the tags cat, dog, and a picture has one label"


def test_a_picture_listed_twice(tmp_path: Path) -> None:
    other = BOX.replace("1.5", "3")
    annotated(tmp_path, image(BOX), image(BOX, other, name="./a.png", attributes=""))
    (only,) = found(tmp_path)
    assert isinstance(only, SourceImage)
    assert only.boxes == (SourceBox("cat", 1.5, 2, 11, 12), SourceBox("cat", 3, 2, 11, 12))
    for attributes, reason in (('width="9" height="24"', "different sizes"), ('subset="test"', "different subsets")):
        annotated(tmp_path, image(BOX), image(attributes=attributes))
        (rejection,) = found(tmp_path)
        assert isinstance(rejection, Rejection)
        assert rejection.reason == f"it is listed twice, {'with' if 'sizes' in reason else 'in'} {reason}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file; name the annotations.xml of the export"),
        ("", "not an XML file"),
        ("<annotations><image", "not an XML file"),
        ("<annotation><object/></annotation>", 'no <annotations> with <image> in it; export it as "CVAT for images'),
        (
            "<annotations>\n<track id='0'/></annotations>",
            'line 2: tracks of a video; export it as "CVAT for images 1.1"',
        ),
        ("<annotations><image id='0'/></annotations>", "line 1: an image without a name"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotations><image name='&b;'/></annotations>", "defines entities"),
    ],
)
def test_an_invalid_file_is_one_error_line(tmp_path: Path, text: str | None, message: str) -> None:
    put(tmp_path / "set/images/a.png")
    if text is not None:
        put(tmp_path / "set/annotations.xml", text.encode())
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        found(tmp_path)
    assert str(caught.value).startswith("params.yaml: fetch.sources.0: cvat.annotations: set/annotations.xml: ")


CVAT = {"cvat": {"images": "p", "annotations": "a.xml"}}


def exported(boxes: Drawn, data: st.DataObject) -> list[str]:
    """The lines of an XML file of these boxes, drawn with one tool or another."""
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations>"]
    for number, (name, (width, height)) in enumerate(SIZES.items()):
        lines.append(f'<image id="{number}" name="{name}" width="{width}" height="{height}">')
        for label, x, y, w, h in boxes[name]:
            shapes = [
                f'<box label="{label}" xtl="{x}" ytl="{y}" xbr="{x + w}" ybr="{y + h}" occluded="0"/>',
                f'<box label="{label}" xbr="{x}" ytl="{y}" xtl="{x + w}" ybr="{y + h}"/>',
                f'<polygon label="{label}" points="{x},{y};{x + w},{y};{x + w / 2},{y + h}"/>',
                f'<ellipse label="{label}" cx="{x + w / 2}" cy="{y + h / 2}" rx="{w / 2}" ry="{h / 2}"/>',
                f'<ellipse label="{label}" cx="{x + w / 2}" cy="{y + h / 2}" rx="{h / 2}" ry="{w / 2}" rotation="90"/>',
            ]
            lines.append(data.draw(st.sampled_from(shapes), "shape"))
        lines.append("</image>")
    return [*lines, "</annotations>"]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(drawn(), st.data())
def test_boxes_in_are_boxes_out(tmp_path: Path, boxes: Drawn, data: st.DataObject) -> None:
    put_pictures(tmp_path / "p")
    put(tmp_path / "a.xml", "\n".join(exported(boxes, data)).encode())
    assert_all(tmp_path, CVAT, "p", boxes)


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(drawn(), st.data())
def test_of_a_damaged_file_no_picture_has_fewer_boxes(tmp_path: Path, boxes: Drawn, data: st.DataObject) -> None:
    """An attribute of a shape is lost or holds something else, a picture is listed twice, or the file is cut short."""
    put_pictures(tmp_path / "p")
    lines = exported(boxes, data)
    at = data.draw(st.sampled_from([n for n, line in enumerate(lines) if " label=" in line]))
    attributes = re.findall(r' (\w+)="([^"]*)"', lines[at])
    key, value = data.draw(st.sampled_from([one for one in attributes if one[0] not in ("occluded", "rotation")]))
    damage = data.draw(st.sampled_from(["lose", "change", "kind", "twice", "cut"]))
    if damage == "lose":
        lines[at] = lines[at].replace(f' {key}="{value}"', "")
    elif damage == "change" and key != "label":
        bad = data.draw(st.sampled_from(["", "x", "nan", "inf", "1e999", "1,5", "&lt;"]))
        lines[at] = lines[at].replace(f'{key}="{value}"', f'{key}="{bad}"')
    elif damage == "kind":
        lines[at] = (
            "<" + data.draw(st.sampled_from(["points", "polyline", "tag", "Box"])) + lines[at][lines[at].index(" ") :]
        )
    elif damage == "twice":
        lines.insert(2, re.sub(r'width="\d+"', 'width="7"', lines[2])[:-1] + "/>")
    text = "\n".join(lines)
    text = text[: data.draw(st.integers(0, len(text) - 1))] if damage == "cut" else text
    put(tmp_path / "a.xml", text.encode())
    if damage == "kind" and "<tag" in text:  # a tag is an annotation of its own: the label of the picture
        boxes = {name: found for name, found in boxes.items() if f'name="{name}"' not in text[: text.index("<tag")]}
    assert_all_or_rejected(tmp_path, CVAT, "p", boxes)
