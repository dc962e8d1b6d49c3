"""Boxes are transformed as their pixels are: a filled rectangle and its box must still agree afterwards."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.augment.box_transforms import (
    make_mosaic,
    sample_mosaic_rows,
    transform_boxes,
    transform_targets,
    zoom_into_mosaic,
)
from headstart.augment.transforms import SampledTransform, transform_batch, transform_image

SIDE = 64
NEUTRAL = SampledTransform(False, False, 0, 0, 0, 1, 0, 1, 1, 1, 0, 0, 0)
transforms = st.builds(
    lambda **changes: SampledTransform(**{**vars(NEUTRAL), **changes}),
    horizontal_flip=st.booleans(),
    vertical_flip=st.booleans(),
    rotation=st.sampled_from([0.0, 0.0, 90.0, -90.0, 20.0, -35.0]),
    shift_x=st.floats(-0.3, 0.3),
    shift_y=st.floats(-0.3, 0.3),
    zoom=st.floats(0.6, 1.5),
    shear=st.sampled_from([0.0, 0.0, 10.0, -15.0]),
)
sides = st.tuples(st.integers(2, 40), st.integers(2, 40), st.integers(12, 40), st.integers(12, 40))


def rectangle(width: int, height: int, box: tuple[int, int, int, int]) -> torch.Tensor:
    x1, y1, x2, y2 = box
    picture = torch.zeros(3, height, width, dtype=torch.uint8)
    picture[:, y1:y2, x1:x2] = 255
    return picture


def bright(picture: Any) -> tuple[float, float, float, float] | None:
    """The box around what is bright."""
    y, x = np.nonzero(np.asarray(picture) > 127)
    return (x.min(), y.min(), x.max() + 1, y.max() + 1) if len(x) else None


def agree(transform: SampledTransform, box: tuple[int, int, int, int], size: tuple[int, int], picture: Any) -> None:
    moved, visible = transform_boxes(np.array([box], np.float64), transform, *size)
    pixels = bright(picture)
    if not visible[0]:
        assert pixels is None or min(pixels[2] - pixels[0], pixels[3] - pixels[1]) <= 2, "hardly a pixel is left of it"
    elif pixels is None:
        assert min(moved[0][2:] - moved[0][:2]) < 2, "a pixel that is half covered is not bright"
    elif transform.rotation % 90 == 0 and not transform.shear:
        assert moved[0] == pytest.approx(pixels, abs=1.51)
    else:  # the corner of a turned rectangle is sharper than the pixels
        assert (moved[0][:2] <= np.array(pixels[:2]) + 1.51).all()
        assert (moved[0][2:] >= np.array(pixels[2:]) - 1.51).all()
        assert moved[0] == pytest.approx(pixels, abs=4.5)


@settings(max_examples=120)
@given(transforms, sides, st.sampled_from([(SIDE, SIDE), (96, 64), (64, 96)]))
def test_boxes_and_pixels_of_a_batch_move_together(
    transform: SampledTransform, sizes: tuple[int, int, int, int], frame: tuple[int, int]
) -> None:
    x, y, width, height = sizes
    box = (x // 2, y // 2, x // 2 + width, y // 2 + height)
    pictures = rectangle(*frame, box)[None].float() / 255
    # Outside the rectangle the picture has the grey of the fill.
    transformed = transform_batch(pictures * 0.5 + 0.5, [transform], gray_fill=True)
    agree(transform, box, frame, (transformed[0, 0] - 0.5) * 510)


@settings(max_examples=80)
@given(transforms, sides)
def test_boxes_and_pixels_of_a_stored_copy_move_together(
    transform: SampledTransform, sizes: tuple[int, int, int, int]
) -> None:
    """Of a picture that is no square: 96 x 64."""
    x, y, width, height = sizes
    box = (x // 2, y // 2, x // 2 + width, y // 2 + height)
    dark = rectangle(96, 64, box) // 2 + 127
    copied = transform_image(dark, transform, gray_fill=True)
    agree(transform, box, (96, 64), (copied[0].float() - 127) * 2)


def test_a_box_stays_as_long_as_something_of_it_is_in_the_picture() -> None:
    """A fifth of an object without its box would be taught as background."""
    boxes = np.array([[0, 0, 20, 20], [30, 30, 50, 50], [40, 0, 64, 20]], np.float64)
    moved, visible = transform_boxes(boxes, replace(NEUTRAL, shift_x=0.3), SIDE, SIDE)
    assert visible.tolist() == [True, True, True]
    assert moved[2].tolist() == pytest.approx([59.2, 0, 64, 20]), "19.2 to the right: 4.8 of 24 columns are left"
    moved, visible = transform_boxes(boxes, replace(NEUTRAL, shift_x=0.5), SIDE, SIDE)
    assert visible.tolist() == [True, True, False]
    assert moved[:2].tolist() == [[32, 0, 52, 20], [62, 30, 64, 50]]
    _, visible = transform_boxes(boxes, replace(NEUTRAL, shift_x=33.1 / SIDE), SIDE, SIDE)
    assert visible.tolist() == [True, False, False], "0.9 pixels of the second are left: nothing of it can be seen"


def test_of_a_turned_box_what_is_in_the_picture_counts() -> None:
    """Turned by 45 degrees a square of 20 is a rhombus, 28.3 wide; the upright box round all of it reaches further."""
    turned = replace(NEUTRAL, rotation=45, shift_x=0.5)  # its centre is moved to the right edge
    moved, visible = transform_boxes(np.array([[22.0, 22, 42, 42]]), turned, SIDE, SIDE)
    half = 10 * 2**0.5
    assert visible.tolist() == [True]
    assert moved[0].tolist() == pytest.approx([64 - half, 32 - half, 64, 32 + half])
    further = replace(turned, shift_x=0.6)  # 6.4 more: a triangle is left
    moved, _ = transform_boxes(np.array([[22.0, 22, 42, 42]]), further, SIDE, SIDE)
    rest = half - 6.4
    assert moved[0].tolist() == pytest.approx([64 - rest, 32 - rest, 64, 32 + rest])


def test_a_turned_box_beside_a_corner_of_the_frame_is_gone() -> None:
    """The upright box round a rhombus of half diagonal 17 still reaches 7 pixels into the picture; it does not."""
    box, half = np.array([[38.0, 38, 62, 62]]), 12 * 2**0.5

    def moved_to(centre: float) -> tuple[list[float], bool]:
        shift = (centre - 50) / 100
        (moved,), (stays,) = transform_boxes(box, replace(NEUTRAL, rotation=45, shift_x=shift, shift_y=shift), 100, 100)
        return moved.tolist(), bool(stays)

    assert moved_to(-10) == ([0, 0, 0, 0], False)
    rest = half - 14  # where x + 7 + y + 7 is the half diagonal, the rhombus ends
    moved, stays = moved_to(-7)
    assert stays
    assert moved == pytest.approx([0, 0, rest, rest])


def test_a_picture_in_one_box_stays_in_it() -> None:
    """A box that covers the frame has none of its corners and edges there."""
    box = np.array([[0.0, 0, 64, 64]])
    moved, visible = transform_boxes(box, replace(NEUTRAL, rotation=30, zoom=3), SIDE, SIDE)
    assert moved[0].tolist() == [0, 0, 64, 64]
    assert visible.tolist() == [True]


def test_a_picture_without_boxes() -> None:
    moved, visible = transform_boxes(np.zeros((0, 4)), NEUTRAL, SIDE, SIDE)
    assert moved.shape == (0, 4)
    assert visible.shape == (0,)
    assert transform_targets(torch.zeros(0, 5), NEUTRAL, (SIDE, SIDE)).shape == (0, 5)


def test_the_label_stays_with_its_box() -> None:
    target = torch.tensor([[2.0, 0, 0, 20, 20], [1.0, 40, 0, 64, 20]])
    moved = transform_targets(target, SampledTransform(**{**vars(NEUTRAL), "shift_x": 0.5}), (SIDE, SIDE))
    assert moved.tolist() == [[2, 32, 0, 52, 20]]


def test_four_pictures_in_one() -> None:
    """Each box, halved and put in its quarter, covers the bright pixels."""
    boxes = [(8, 12, 40, 50), (0, 0, 64, 64), (20, 20, 30, 60), (30, 4, 62, 20)]
    pictures = [rectangle(SIDE, SIDE, box).float() / 255 for box in boxes]
    targets = [torch.tensor([[number, *box]], dtype=torch.float32) for number, box in enumerate(boxes)]
    picture, moved = make_mosaic(pictures, targets)
    assert picture.shape == (3, SIDE, SIDE)
    assert moved[:, 0].tolist() == [0, 1, 2, 3]
    for number, row in enumerate(moved):
        top, left = 32 * (number // 2), 32 * (number % 2)
        own = torch.zeros(SIDE, SIDE)
        own[top : top + 32, left : left + 32] = picture[0, top : top + 32, left : left + 32]
        found = bright(own * 255)
        assert found is not None
        assert row[1:].tolist() == pytest.approx(found, abs=0.51)


def test_four_pictures_in_one_of_height_and_width() -> None:
    boxes = [(0, 0, 96, 64), (60, 4, 90, 60)] * 2
    pictures = [rectangle(96, 64, box).float() / 255 for box in boxes]
    picture, moved = make_mosaic(pictures, [torch.tensor([[0, *box]], dtype=torch.float32) for box in boxes])
    assert picture.shape == (3, 64, 96)
    assert moved[:, 1:].tolist() == [[0, 0, 48, 32], [78, 2, 93, 30], [0, 32, 48, 64], [78, 34, 93, 62]]


def test_rows_of_a_mosaic_depend_on_the_seed() -> None:
    seeds = [replace(NEUTRAL, seed=seed) for seed in range(200)]
    rows = [sample_mosaic_rows(7, 50, 0.3, transform) for transform in seeds]
    assert rows == [sample_mosaic_rows(7, 50, 0.3, transform) for transform in seeds]
    assert {len(some) for some in rows} == {1, 4}
    assert sum(len(some) == 4 for some in rows) / 200 == pytest.approx(0.3, abs=0.1)
    assert all(some[0] == 7 and 0 <= min(some) <= max(some) < 50 for some in rows)
    assert {len(sample_mosaic_rows(7, 50, share, seeds[0])) for share in (0.0, 1.0)} == {1, 4}


def test_the_zoom_into_a_mosaic_stays_within_it() -> None:
    for seed in range(50):
        zoomed = zoom_into_mosaic(replace(NEUTRAL, seed=seed))
        assert 1 <= zoomed.zoom <= 2
        # Half the picture's excess on either side: at most that far can it be shifted without showing its outside.
        assert max(abs(zoomed.shift_x), abs(zoomed.shift_y)) <= (zoomed.zoom - 1) / 2
        assert zoomed == zoom_into_mosaic(replace(NEUTRAL, seed=seed))
