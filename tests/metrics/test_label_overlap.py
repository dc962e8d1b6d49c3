"""How many annotated boxes overlap one of another label, by hand."""

import pytest

from headstart.metrics import label_overlap
from headstart.metrics.label_overlap import overlapping_share
from synthetic_boxes import manifest

CARD, SHIFTED, APART = (10.0, 10.0, 40.0, 40.0), (20.0, 10.0, 40.0, 40.0), (100.0, 20.0, 50.0, 80.0)


def test_by_hand() -> None:
    """SHIFTED overlaps CARD by an IoU of 0.6: of the second picture all three have a rival at IoU 1."""
    truth = manifest([[("cat", CARD), ("dog", SHIFTED), ("dog", APART)], [("cat", CARD), ("cat", CARD), ("dog", CARD)]])
    assert overlapping_share([truth], 0.5) == pytest.approx(5 / 6)
    assert overlapping_share([truth], 0.6) == pytest.approx(3 / 6), "an IoU of just the limit is no overlap"
    one = manifest([[("cat", CARD), ("dog", APART)]])
    assert overlapping_share([one, one], 0.5) == 0
    assert overlapping_share([one, truth], 0.5) == pytest.approx(5 / 8)


def test_boxes_in_two_pictures_and_crowds_do_not_overlap() -> None:
    assert overlapping_share([manifest([[("cat", CARD)], [("dog", CARD)]])], 0.5) == 0
    assert overlapping_share([manifest([[("cat", CARD), ("dog", CARD)]], crowds=[2])], 0.5) == 0
    assert overlapping_share([manifest([[]])], 0.5) == 0


def test_many_boxes_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = [(("cat", "dog")[n % 2], (10.0 * (n // 4 % 18), 30.0 * (n // 72), 9.0, 9.0)) for n in range(144)]
    whole = overlapping_share([manifest([boxes])], 0.5)
    monkeypatch.setattr(label_overlap, "_ROWS", 5)
    assert whole == overlapping_share([manifest([boxes])], 0.5) == 1
