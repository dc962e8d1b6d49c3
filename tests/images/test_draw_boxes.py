"""Boxes drawn: visible on any background, distinguishable without colour, labels inside the picture or on padding."""

import numpy as np
import pytest
from PIL import Image

from headstart.images.draw_boxes import MIN_LONGEST_SIDE, DrawnBox, draw_boxes, shorten_label

BACKGROUNDS = ("#000000", "#ffffff", "#808080", "#0072b2", "#ffb000")


def grey(picture: Image.Image) -> "np.ndarray[tuple[int, int], np.dtype[np.int64]]":
    return np.asarray(picture.convert("L"), np.int64)


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("true", [False, True])
def test_a_line_contrasts_with_any_background_in_grey(background: str, true: bool) -> None:
    empty = Image.new("RGB", (500, 400), background)
    drawn = draw_boxes(empty, [DrawnBox((100, 100, 300, 250), ground_truth=true)])
    change = np.abs(grey(drawn) - grey(empty))
    assert change[98:103, 110:290].max() > 70, "the upper side"
    assert change[120:230, 120:280].max() == 0, "the inside stays as it is"


def test_ground_truth_is_dashed_and_predictions_are_not() -> None:
    empty = Image.new("RGB", (500, 400), "#808080")
    for true in (False, True):
        drawn = draw_boxes(empty, [DrawnBox((100, 100, 300, 250), ground_truth=true)])
        side = np.abs(grey(drawn) - grey(empty))[100, 105:295] > 20
        assert side.all() != true
        assert 0.3 < side.mean() < 1 or not true


def test_a_highlighted_box_is_thicker() -> None:
    empty = Image.new("RGB", (500, 400))
    thin, thick = (grey(draw_boxes(empty, [DrawnBox((100, 100, 300, 250), highlighted=s)])) for s in (False, True))
    assert (thick > 0).sum() > 1.4 * (thin > 0).sum()


@pytest.mark.parametrize("corners", [(5, 5, 60, 30), (440, 370, 499, 399), (0, 0, 500, 400), (-20, -20, 30, 600)])
@pytest.mark.parametrize("true", [False, True])
def test_a_label_lies_within_the_picture(corners: tuple[float, float, float, float], true: bool) -> None:
    empty = Image.new("RGB", (500, 400), "#808080")
    with_label, without = (draw_boxes(empty, [DrawnBox(corners, text, true)]) for text in ("raccoon 0.93", ""))
    rows, columns = np.nonzero(np.asarray(with_label.convert("L")) != np.asarray(without.convert("L")))
    assert with_label.size == (500, 400)
    # The label is complete: as wide and high in a corner as it is in the middle.
    middle = np.asarray(draw_boxes(empty, [DrawnBox((200, 200, 300, 250), "raccoon 0.93", true)]).convert("L"))
    bare = np.asarray(draw_boxes(empty, [DrawnBox((200, 200, 300, 250), "", true)]).convert("L"))
    expected = [np.ptp(side) for side in np.nonzero(middle != bare)]
    assert [np.ptp(rows), np.ptp(columns)] == pytest.approx(expected, abs=8)


@pytest.mark.parametrize("size", [(1, 300), (6, 200), (300, 6), (400, 1), (1, 1)])
def test_narrow_low_and_tiny_pictures_get_padding_for_their_labels(size: tuple[int, int]) -> None:
    drawn = draw_boxes(Image.new("L", size), [DrawnBox((0, 0, size[0], size[1]), "a label of the usual length 0.93")])
    assert drawn.width >= 120
    assert drawn.height >= 15
    assert max(drawn.size) <= MIN_LONGEST_SIDE + 250
    assert grey(drawn).max() == 255, "letters"


def test_sizes() -> None:
    for before, most, after in (((2000, 1000), 400, (400, 200)), ((2000, 1000), None, (2000, 1000))):
        assert draw_boxes(Image.new("RGB", before), [], most).size == after
    assert draw_boxes(Image.new("RGB", (100, 50)), []).size == (MIN_LONGEST_SIDE, MIN_LONGEST_SIDE // 2)
    assert draw_boxes(Image.new("RGB", (100, 50)), [], 400).size == (400, 200)


def test_labels_do_not_hide_each_other_and_the_first_one_wins() -> None:
    empty = Image.new("RGB", (600, 500))
    one = [DrawnBox((100, 100, 200, 200), "first 0.9")]
    crowd = draw_boxes(empty, one + [DrawnBox((100 + n, 100, 200 + n, 200), f"other {n}") for n in range(40)])
    alone = draw_boxes(empty, one)
    area = (slice(80, 97), slice(102, 160))
    assert np.array_equal(np.asarray(crowd)[area], np.asarray(alone)[area])


def test_five_thousand_boxes_are_drawn_in_no_time() -> None:
    boxes = [DrawnBox((n % 100 * 6, n // 100 * 8, n % 100 * 6 + 5, n // 100 * 8 + 7), f"cell {n}") for n in range(5000)]
    assert draw_boxes(Image.new("RGB", (640, 480)), boxes).size == (640, 480)


def test_labels_in_other_scripts_have_letters() -> None:
    """Not the box that stands for a glyph which the font has not."""
    one, other = (
        np.asarray(draw_boxes(Image.new("RGB", (500, 400)), [DrawnBox((9, 90, 99, 99), t)])) for t in ("Жук", "Жуж")
    )
    assert not np.array_equal(one, other)


def test_long_labels_keep_their_end() -> None:
    assert shorten_label("a very long label of many words indeed") == "a very long la…ds indeed"
    assert shorten_label("x" * 24) == "x" * 24
