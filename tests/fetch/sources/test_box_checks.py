from dataclasses import replace
from pathlib import Path

import pytest

from headstart.base.errors import UserError
from headstart.fetch.sources.box_checks import are_fractions, check_units, order_corners
from headstart.fetch.sources.records import LocalFile, Rejection, SourceBox, SourceImage

LOST = Rejection("coco:a.json", "c.png", "annotation", "a reason")


def image(name: str, *corners: tuple[float, float, float, float], frame: tuple[float, float] | None) -> SourceImage:
    boxes = tuple(SourceBox("cat", *box) for box in corners)
    return SourceImage(name, "coco:a.json", LocalFile(Path(name)), boxes=boxes, frame=frame)


@pytest.mark.parametrize("corners", [(1, 2, 3, 4), (3, 2, 1, 4), (1, 4, 3, 2), (3, 4, 1, 2)])
def test_corners_are_ordered(corners: tuple[float, float, float, float]) -> None:
    box = SourceBox("cat", *corners[:2], *corners[2:], crowd=True, where="line 3")
    ordered = order_corners(box)
    assert ordered == SourceBox("cat", 1, 2, 3, 4, crowd=True)
    assert ordered.where == "line 3"


@pytest.mark.parametrize(
    ("corners", "expected"),
    [
        ([(0, 0, 1, 1)], True),
        ([(0.2, 0.3, 0.4, 0.5), (0, 0, 1.00001, 1)], True),
        ([(0.2, 0.3, 0.4, 0.5), (0, 0, 2, 1)], False),
        ([(0.2, 0.3, 0.4, 0.5)] * 9 + [(0.7, -0.1, 1.2, 0.5)], True),  # reaches over the edge of its picture
        ([(0.2, 0.3, 0.4, 0.5)] * 8 + [(0.7, -0.1, 1.2, 0.5)], False),
        ([(0.2, 0.3, 0.4, 0.5)] * 99 + [(0.7, 0.1, 1.6, 0.5)], False),
        ([(-0.2, 0.3, 0.4, 0.5)], False),
        ([(float("nan"), 0.3, 0.4, 0.5)], False),
        ([], False),
    ],
)
def test_fractions_are_recognized(corners: list[tuple[float, float, float, float]], expected: bool) -> None:
    assert are_fractions(SourceBox("cat", *box) for box in corners) is expected


def test_fractions_are_scaled_to_the_annotated_size(capsys: pytest.CaptureFixture[str]) -> None:
    """Not to (1, 1): the annotated size also tells whether the boxes are of the upright picture."""
    items = (image("a.png", (0.5, 0.25, 1, 0.5), frame=(60, 40)), image("b.png", frame=None), LOST)
    first, second, third = check_units(items, "coco:a.json")
    assert first == image("a.png", (30, 10, 60, 20), frame=(60, 40))
    assert (second, third) == (items[1], LOST)
    line = "fetch: coco:a.json: all corners lie within 0 and 1: read as fractions of the picture\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("frame", [None, (1.0, 1.0)])
def test_fractions_without_a_size_are_an_error(frame: tuple[float, float] | None) -> None:
    items = [image("a.png", (0.5, 0.25, 1, 0.5), frame=(60, 40)), image("b.png", (0, 0, 0.5, 0.5), frame=frame)]
    with pytest.raises(UserError) as caught:
        check_units(items, "coco:a.json", "do this")
    assert str(caught.value) == (
        "coco:a.json: all corners lie within 0 and 1, and pixels are expected; no width and height for b.png: do this"
    )


def test_one_box_within_a_pixel_rejects_its_picture(capsys: pytest.CaptureFixture[str]) -> None:
    whole = image("a.png", (5, 6, 7, 8), frame=(60, 40))
    placed = replace(image("d.png", frame=None), boxes=(SourceBox("cat", 0.1, 0.2, 0.3, 0.4, where="a.json: no. 3"),))
    assert "a.json: no. 3: the box 0.1, 0.2" in check_units([whole, placed], "coco:a.json")[1].reason  # type: ignore[union-attr]
    first, second, third = check_units(
        [whole, image("b.png", (5, 6, 7, 8), (0.1, 0.2, 0.3, 0.4), frame=(60, 40)), LOST], "coco:a.json"
    )
    assert (first, third) == (whole, LOST)
    assert isinstance(second, Rejection)
    assert (second.location, second.kind, second.ignored) == ("b.png", "box", False)
    assert "the box 0.1, 0.2, 0.3, 0.4 of 'cat' lies within one pixel" in second.reason
    assert capsys.readouterr().err == ""
