"""Boxes move with their pixels: a white patch is found again where its box went."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from headstart.boxes import place
from headstart.door import Picture, PictureError, admit
from headstart.sources import Box, Local, Wanted
from pictures import decoded, encoded

SIZE = (60, 40)
PATCH = (6, 4, 21, 12)  # xmin, ymin, xmax, ymax in stored pixels


def patched(orientation: int = 1, rotation: int | None = None) -> Picture:
    image = Image.new("RGB", SIZE)
    image.paste("white", PATCH)
    return admit(encoded(image, "PNG", orientation), rotation=rotation)


def wanted(*boxes: Box, frame: tuple[float, float] | None = None) -> Wanted:
    return Wanted("x", "s", Local(None), boxes=boxes, frame=frame)  # type: ignore[arg-type]


def white(picture: Picture) -> tuple[float, ...]:
    rows, columns = np.nonzero(np.asarray(decoded(picture.data).convert("L")) > 128)
    x, y = columns.min(), rows.min()
    return tuple(float(value) for value in (x, y, columns.max() + 1 - x, rows.max() + 1 - y))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_in_the_stored_frame_follow_exif(orientation: int) -> None:
    picture = patched(orientation)
    placed = place(wanted(Box("a", *PATCH), frame=SIZE), picture)
    if orientation in (2, 3, 4):  # the sizes are equal: they tell nothing, and tools show the upright picture
        assert placed.boxes[0][1] == (6, 4, 15, 8)
    else:
        assert placed.boxes[0][1] == pytest.approx(white(picture))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_in_the_upright_frame_stay(orientation: int) -> None:
    picture = patched(orientation)
    x, y, width, height = white(picture)
    box = Box("a", x, y, x + width, y + height)
    for frame in ((picture.width, picture.height), None):
        assert place(wanted(box, frame=frame), picture).boxes[0][1] == pytest.approx((x, y, width, height))
    share = Box("a", x / picture.width, y / picture.height, (x + width) / picture.width, (y + height) / picture.height)
    assert place(wanted(share, frame=(1, 1)), picture).boxes[0][1] == pytest.approx((x, y, width, height), abs=2e-3)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_known_rotation_turns_picture_and_boxes_together(rotation: int, orientation: int) -> None:
    picture = patched(orientation, rotation)
    corners = (PATCH[0] / 60, PATCH[1] / 40, PATCH[2] / 60, PATCH[3] / 40)
    placed = place(replace(wanted(Box("a", *corners), frame=(1, 1)), stored_frame=True), picture)
    assert placed.boxes[0][1] == pytest.approx(white(picture), abs=2e-3)


def test_boxes_made_at_another_scale_are_scaled() -> None:
    placed = place(wanted(Box("a", 60, 40, 120, 80, crowd=True), frame=(120, 80)), patched())
    assert placed.boxes == (("a", (30, 20, 30, 20), True),)
    assert placed.clipped == 0


def test_boxes_of_another_picture_are_rejected() -> None:
    with pytest.raises(PictureError, match="for a picture of 80 x 80 pixels, this one has 60 x 40"):
        place(wanted(Box("a", 1, 1, 2, 2), frame=(80, 80)), patched())


def test_boxes_beyond_the_picture_are_cut_and_empty_ones_dropped() -> None:
    boxes = (Box("a", -5, -5, 70, 20), Box("b", 3, 3, 3, 9), Box("c", 70, 3, 80, 9), Box("d", float("nan"), 0, 1, 1))
    placed = place(wanted(*boxes), patched())
    assert placed.boxes == (("a", (0, 0, 60, 20), False),)
    assert placed.clipped == 1
    assert [text.split("'")[1] for text in placed.dropped] == ["b", "c", "d"]


NUMBER = st.floats(width=32)


@given(st.tuples(NUMBER, NUMBER, NUMBER, NUMBER), st.sampled_from([None, (1, 1), SIZE]))
def test_every_box_is_inside_or_dropped(
    corners: tuple[float, float, float, float], frame: tuple[float, float] | None
) -> None:
    placed = place(wanted(Box("a", *corners), frame=frame), patched())
    assert len(placed.boxes) + len(placed.dropped) == 1
    for _, (x, y, width, height), _ in placed.boxes:
        assert x >= 0
        assert y >= 0
        assert width >= 0
        assert height >= 0
        assert x + width <= 60.002
        assert y + height <= 40.002
