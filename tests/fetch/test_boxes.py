"""Boxes are converted as their pixels are: a white patch lies where its box is."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from headstart.fetch.boxes import convert_boxes
from headstart.fetch.sources.records import LocalFile, SourceBox, SourceImage
from headstart.images.decode import PictureError, ValidatedPicture, validate_picture
from pictures import decoded, encoded

SIZE = (60, 40)
PATCH = (6, 4, 21, 12)  # xmin, ymin, xmax, ymax in stored pixels


def picture_with_patch(orientation: int = 1, rotation: int | None = None) -> ValidatedPicture:
    image = Image.new("RGB", SIZE)
    image.paste("white", PATCH)
    return validate_picture(encoded(image, "PNG", orientation), rotation=rotation)


def source_image(*boxes: SourceBox, frame: tuple[float, float] | None = None) -> SourceImage:
    return SourceImage("x", "s", LocalFile(None), boxes=boxes, frame=frame)  # type: ignore[arg-type]


def white_box(picture: ValidatedPicture) -> tuple[float, ...]:
    rows, columns = np.nonzero(np.asarray(decoded(picture.data).convert("L")) > 128)
    x, y = columns.min(), rows.min()
    return tuple(float(value) for value in (x, y, columns.max() + 1 - x, rows.max() + 1 - y))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_in_the_stored_frame_follow_exif(orientation: int) -> None:
    picture = picture_with_patch(orientation)
    converted = convert_boxes(source_image(SourceBox("a", *PATCH), frame=SIZE), picture)
    if orientation in (2, 3, 4):  # the sizes are equal: they decide nothing, and tools show the upright picture
        assert converted.boxes[0][1] == (6, 4, 15, 8)
    else:
        assert converted.boxes[0][1] == pytest.approx(white_box(picture))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_in_the_upright_frame_stay(orientation: int) -> None:
    picture = picture_with_patch(orientation)
    x, y, width, height = white_box(picture)
    box = SourceBox("a", x, y, x + width, y + height)
    for frame in ((picture.width, picture.height), None):
        assert convert_boxes(source_image(box, frame=frame), picture).boxes[0][1] == pytest.approx(
            (x, y, width, height)
        )
    share = SourceBox(
        "a", x / picture.width, y / picture.height, (x + width) / picture.width, (y + height) / picture.height
    )
    assert convert_boxes(source_image(share, frame=(1, 1)), picture).boxes[0][1] == pytest.approx(
        (x, y, width, height), abs=2e-3
    )


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_known_rotation_turns_picture_and_boxes_together(rotation: int, orientation: int) -> None:
    picture = picture_with_patch(orientation, rotation)
    corners = (PATCH[0] / 60, PATCH[1] / 40, PATCH[2] / 60, PATCH[3] / 40)
    converted = convert_boxes(replace(source_image(SourceBox("a", *corners), frame=(1, 1)), stored_frame=True), picture)
    assert converted.boxes[0][1] == pytest.approx(white_box(picture), abs=2e-3)


def test_boxes_made_at_another_scale_are_scaled() -> None:
    converted = convert_boxes(
        source_image(SourceBox("a", 60, 40, 120, 80, crowd=True), frame=(120, 80)), picture_with_patch()
    )
    assert converted.boxes == (("a", (30, 20, 30, 20), True),)
    assert converted.clipped == 0


def test_boxes_beyond_the_size_of_a_smaller_copy_reject_their_picture() -> None:
    """The size is of the copy and the boxes are of the picture: none of them may be scaled."""
    boxes = (SourceBox("a", 6, 4, 21, 12), SourceBox("b", 20, 4, 50, 12, where="a.xml: line 9"))
    with pytest.raises(PictureError) as caught:
        convert_boxes(source_image(*boxes, frame=(30, 20)), picture_with_patch())
    assert str(caught.value) == (
        "a.xml: line 9: box of 'b': it ends at 50, 12, beyond its annotation's picture of 30 x 20 pixels; this one "
        "has 60 x 40: correct the size there"
    )
    rounded = source_image(SourceBox("a", 10, 4, 30.4, 12), frame=(30, 20))
    assert convert_boxes(rounded, picture_with_patch()).boxes == (("a", (20, 8, 40, 16), False),)


def test_boxes_of_another_picture_are_rejected() -> None:
    with pytest.raises(PictureError, match="for a picture of 80 x 80 pixels, this one has 60 x 40"):
        convert_boxes(source_image(SourceBox("a", 1, 1, 2, 2), frame=(80, 80)), picture_with_patch())


def test_boxes_beyond_the_picture_are_cut() -> None:
    boxes = (SourceBox("a", -5, -5, 70, 20), SourceBox("b", 3, 3, 60.4, 9))
    converted = convert_boxes(source_image(*boxes), picture_with_patch())
    assert converted.boxes == (("a", (0, 0, 60, 20), False), ("b", (3, 3, 57, 6), False))
    assert converted.clipped == 1, "less than half a pixel is rounding"


@pytest.mark.parametrize(
    ("corners", "problem"),
    [
        ((3, 3, 3, 9), "3, 3, 3, 9 has no area within the picture of 60 x 40"),
        ((70, 3, 80, 9), "70, 3, 80, 9 has no area within the picture of 60 x 40"),
        ((9, 9, 4, 12), "9, 9, 4, 12 has no area within the picture of 60 x 40"),
        ((5, 5, 5.0001, 9), "5, 5, 5.0001, 9 has no area within the picture of 60 x 40"),
        ((float("nan"), 0, 1, 1), "a corner of nan, 0, 1, 1 is not a finite number"),
    ],
)
def test_an_unusable_box_rejects_its_picture(corners: tuple[float, float, float, float], problem: str) -> None:
    boxes = (SourceBox("a", 1, 2, 11, 12), SourceBox("b", *corners, crowd=False, where="a.xml: line 12"))
    with pytest.raises(PictureError) as caught:
        convert_boxes(source_image(*boxes), picture_with_patch())
    assert (caught.value.kind, str(caught.value)) == ("box", f"a.xml: line 12: box of 'b': {problem}")


NUMBER = st.floats(width=32)


@given(st.tuples(NUMBER, NUMBER, NUMBER, NUMBER), st.sampled_from([None, (1, 1), SIZE]))
def test_every_box_is_inside_or_rejects_its_picture(
    corners: tuple[float, float, float, float], frame: tuple[float, float] | None
) -> None:
    try:
        converted = convert_boxes(source_image(SourceBox("a", *corners), frame=frame), picture_with_patch())
    except PictureError:
        return
    ((_, (x, y, width, height), _),) = converted.boxes
    assert x >= 0
    assert y >= 0
    assert width > 0
    assert height > 0
    assert x + width <= 60.002
    assert y + height <= 40.002
