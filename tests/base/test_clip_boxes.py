"""The rule for boxes at the frame: cut, kept while a pixel is left; one that is not cut stays however small."""

import numpy as np
import pytest

from headstart.base.clip_boxes import clip_boxes

CASES = {
    "inside": ([10, 10, 20, 20], [10, 10, 20, 20], True),
    "small, inside": ([10, 10, 10.2, 10.1], [10, 10, 10.2, 10.1], True),
    "small, at the edge": ([99.5, 10, 100, 20], [99.5, 10, 100, 20], True),
    "beyond by rounding": ([99.5, 10, 100.004, 20], [99.5, 10, 100, 20], True),
    "a tenth is left": ([-90, 10, 10, 20], [0, 10, 10, 20], True),
    "just a pixel is left": ([99, 10, 130, 20], [99, 10, 100, 20], True),
    "less than a pixel": ([99.1, 10, 130, 20], [99.1, 10, 100, 20], False),
    "less than a pixel of the other side": ([10, -30, 20, 0.9], [10, 0, 20, 0.9], False),
    "outside": ([120, 10, 130, 20], [100, 10, 100, 20], False),
    "all round": ([-10, -10, 200, 200], [0, 0, 100, 50], True),
    "no area": ([10, 10, 10, 20], [10, 10, 10, 20], False),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_by_hand(name: str, dtype: type) -> None:
    box, expected, stays = CASES[name]
    clipped, mask = clip_boxes(np.array([box], dtype), 100, 50)
    assert clipped.dtype == dtype
    assert clipped[0].tolist() == pytest.approx(expected)
    assert mask.tolist() == [stays]


def test_no_boxes() -> None:
    clipped, mask = clip_boxes(np.zeros((0, 4)), 100, 50)
    assert (clipped.shape, mask.shape) == ((0, 4), (0,))
