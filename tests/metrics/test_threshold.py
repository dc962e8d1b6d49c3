"""The confidence threshold: cases worked by hand, and no other threshold with a higher F1."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.metrics.coco_matching import match_detections
from headstart.metrics.threshold import OperatingPoint, Threshold, choose_threshold, operating_point, sweep_thresholds
from synthetic_boxes import make_detections, manifest, random_boxes, random_detections

CAT, DOG = (10.0, 10.0, 40.0, 40.0), (100.0, 20.0, 50.0, 80.0)


def test_the_threshold_by_hand() -> None:
    """F1 after each: 2/3 (1 right of 1, of 2), 0.5, 0.8 (2 right of 3), 2/3. The best is 0.7; half way down is 0.5."""
    truth = manifest([[("cat", CAT)], [("dog", DOG)]])
    detections = make_detections((1, "cat", CAT, 0.9), (1, "dog", CAT, 0.8), (2, "dog", DOG, 0.7), (2, "cat", DOG, 0.3))
    classes = match_detections(truth, detections).classes
    assert sweep_thresholds(classes).f1.tolist() == pytest.approx([2 / 3, 0.5, 0.8, 2 / 3])
    assert choose_threshold(classes) == Threshold(0.5, 0.8)
    assert operating_point(classes, 0.5) == OperatingPoint(2 / 3, 1.0, 0.8)
    assert operating_point(classes, 0.95) == OperatingPoint(None, 0.0, 0.0)


def test_detections_of_equal_score_count_together() -> None:
    truth = manifest([[("cat", CAT)]])
    detections = make_detections((1, "cat", CAT, 0.6), *((1, "dog", DOG, 0.6) for _ in range(3)))
    assert sweep_thresholds(match_detections(truth, detections).classes).precision.tolist() == [0.25]


@pytest.mark.parametrize("rows", [[], [(1, "cat", DOG, 0.9)]])
def test_without_a_true_positive_the_threshold_is_the_fallback(
    rows: list[tuple[int, str, tuple[float, ...], float]],
) -> None:
    classes = match_detections(manifest([[("cat", CAT)]]), make_detections(*rows)).classes  # type: ignore[arg-type]
    assert choose_threshold(classes) == Threshold(0.5, 0.0)


def test_without_a_box_in_val_there_is_nothing_to_choose_by() -> None:
    classes = match_detections(manifest([[]]), make_detections((1, "cat", DOG, 0.9))).classes
    assert choose_threshold(classes) == Threshold(0.5, None)


@settings(max_examples=15)
@given(st.integers(0, 2**31))
def test_no_other_threshold_is_better(seed: int) -> None:
    truth = random_boxes(seed, 6)
    classes = match_detections(truth, random_detections(seed + 1, truth)).classes
    chosen = choose_threshold(classes)
    for value in np.linspace(0, 1, 30):
        assert (operating_point(classes, float(value)).f1 or 0) <= (chosen.f1 or 0) + 1e-12
