"""Boxes move as their pixels do: a filled rectangle is drawn, picture and box are moved, and they must still agree."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.changes import Draw, apply, apply_batch
from headstart.moves import mosaic, move, move_targets

SIDE = 64
STILL = Draw(False, False, 0, 0, 0, 1, 0, 1, 1, 1, 0, 0, 0)
moves = st.builds(
    lambda **how: Draw(**{**vars(STILL), **how}),
    mirror=st.booleans(),
    upside_down=st.booleans(),
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


def agree(drawn: Draw, box: tuple[int, int, int, int], size: tuple[int, int], picture: Any) -> None:
    moved, seen = move(np.array([box], np.float64), drawn, *size)
    pixels = bright(picture)
    if not seen[0]:
        area = (box[2] - box[0]) * (box[3] - box[1]) * drawn.zoom**2
        assert (np.asarray(picture) > 127).sum() < 0.5 * area + 20
        return
    if drawn.rotation % 90 == 0 and not drawn.shear:
        assert pixels is not None
        assert moved[0] == pytest.approx(pixels, abs=1.51)
    elif pixels is not None:  # the upright box of a turned one is cut at the edge after it was made: it may be larger
        assert (moved[0][:2] <= np.array(pixels[:2]) + 1.51).all()
        assert (moved[0][2:] >= np.array(pixels[2:]) - 1.51).all()


@settings(max_examples=80)
@given(moves, sides)
def test_boxes_and_pixels_of_a_batch_move_together(drawn: Draw, sizes: tuple[int, int, int, int]) -> None:
    x, y, width, height = sizes
    box = (x // 2, y // 2, x // 2 + width, y // 2 + height)
    pictures = rectangle(SIDE, SIDE, box)[None].float() / 255
    grey = apply_batch(pictures * 0.5 + 0.5, [drawn], grey=True)  # outside the rectangle it is as grey as the outside
    agree(drawn, box, (SIDE, SIDE), (grey[0, 0] - 0.5) * 510)


@settings(max_examples=80)
@given(moves, sides)
def test_boxes_and_pixels_of_a_stored_copy_move_together(drawn: Draw, sizes: tuple[int, int, int, int]) -> None:
    """Of a picture that is no square: 96 x 64."""
    x, y, width, height = sizes
    box = (x // 2, y // 2, x // 2 + width, y // 2 + height)
    dark = rectangle(96, 64, box) // 2 + 127
    copied = apply(dark, drawn, grey=True)
    agree(drawn, box, (96, 64), (copied[0].float() - 127) * 2)


def test_what_leaves_the_picture_is_dropped() -> None:
    boxes = np.array([[0, 0, 20, 20], [30, 30, 50, 50], [40, 0, 64, 20]], np.float64)
    moved, seen = move(boxes, Draw(**{**vars(STILL), "shift_x": 0.3}), SIDE, SIDE)
    assert seen.tolist() == [True, True, False], "19 to the right: of the last, 5 of 24 columns stay"
    moved, seen = move(boxes, Draw(**{**vars(STILL), "shift_x": 0.5}), SIDE, SIDE)
    assert seen.tolist() == [True, False, False]
    assert moved[0].tolist() == [32, 0, 52, 20]


def test_a_picture_without_boxes() -> None:
    moved, seen = move(np.zeros((0, 4)), STILL, SIDE, SIDE)
    assert moved.shape == (0, 4)
    assert seen.shape == (0,)
    assert move_targets(torch.zeros(0, 5), STILL, SIDE).shape == (0, 5)


def test_the_label_stays_with_its_box() -> None:
    target = torch.tensor([[2.0, 0, 0, 20, 20], [1.0, 40, 0, 64, 20]])
    moved = move_targets(target, Draw(**{**vars(STILL), "shift_x": 0.5}), SIDE)
    assert moved.tolist() == [[2, 32, 0, 52, 20]]


def test_four_pictures_in_one() -> None:
    """Each box, halved and put in its quarter, covers the bright pixels."""
    boxes = [(8, 12, 40, 50), (0, 0, 64, 64), (20, 20, 30, 60), (30, 4, 62, 20)]
    pictures = [rectangle(SIDE, SIDE, box).float() / 255 for box in boxes]
    targets = [torch.tensor([[number, *box]], dtype=torch.float32) for number, box in enumerate(boxes)]
    picture, moved = mosaic(pictures, targets)
    assert picture.shape == (3, SIDE, SIDE)
    assert moved[:, 0].tolist() == [0, 1, 2, 3]
    for number, row in enumerate(moved):
        top, left = 32 * (number // 2), 32 * (number % 2)
        own = torch.zeros(SIDE, SIDE)
        own[top : top + 32, left : left + 32] = picture[0, top : top + 32, left : left + 32]
        found = bright(own * 255)
        assert found is not None
        assert row[1:].tolist() == pytest.approx(found, abs=0.51)
