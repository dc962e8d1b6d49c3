"""Outcomes of a detector's boxes, worked by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.evaluation.detector.outcomes import Outcomes, count_pairs, find_outcomes, label_pairs
from headstart.metrics.coco_matching import match_detections
from headstart.metrics.threshold import operating_point
from synthetic_boxes import make_detections, manifest, random_boxes, random_detections

CAT, DOG = (10.0, 10.0, 40.0, 40.0), (100.0, 20.0, 50.0, 80.0)


def test_outcomes_by_hand() -> None:
    """A cat found, and called a dog too; a dog called a cat; a raccoon missed; one on background; one low score."""
    truth = manifest([[("cat", CAT), ("dog", DOG)], [("raccoon", CAT)]])
    detections = make_detections(
        (1, "cat", CAT, 0.9),
        (1, "cat", DOG, 0.8),
        (2, "raccoon", DOG, 0.7),
        (2, "raccoon", CAT, 0.1),
        (1, "dog", CAT, 0.6),
    )
    outcomes = find_outcomes(truth, detections, match_detections(truth, detections), 0.5)
    assert outcomes == Outcomes(
        true_positives=((0, 1),),
        misclassified=((1, 2),),
        duplicates=((4, 1),),
        false_positives=(2,),
        false_negatives=(3,),
    )
    assert outcomes.counts() == {"correct": 1, "wrong_label": 1, "second_box": 1, "nothing_there": 1, "missed": 1}
    counts = count_pairs(label_pairs(truth, detections, outcomes), 3)
    assert counts.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]


def test_one_card_three_labels() -> None:
    """The highest score is a wrong label: the others are second boxes, of the right label too where it came later."""
    truth = manifest([[("cat", CAT)]])
    right_last = make_detections((1, "dog", CAT, 0.9), (1, "raccoon", CAT, 0.8))
    outcomes = find_outcomes(truth, right_last, match_detections(truth, right_last), 0.5)
    assert (outcomes.misclassified, outcomes.duplicates) == (((0, 1),), ((1, 1),))
    found = [*right_last, *make_detections((1, "cat", CAT, 0.7), (1, "cat", CAT, 0.6))]
    outcomes = find_outcomes(truth, found, match_detections(truth, found), 0.5)
    assert (outcomes.true_positives, outcomes.misclassified) == (((2, 1),), ())
    assert outcomes.duplicates == ((0, 1), (1, 1), (3, 1))


def test_a_second_box_lies_on_an_object() -> None:
    """At an IoU of less than 0.5 with what was found nothing is there."""
    truth = manifest([[("cat", (0.0, 0.0, 40.0, 40.0))]])
    boxes = [(1, "cat", (0.0, 0.0, 40.0, 40.0), 0.9), (1, "dog", (20.0, 0.0, 40.0, 40.0), 0.8)]
    detections = make_detections(*boxes)
    outcomes = find_outcomes(truth, detections, match_detections(truth, detections), 0.5)
    assert (outcomes.duplicates, outcomes.false_positives) == ((), (1,))


def test_crowds_have_no_outcome() -> None:
    truth = manifest([[("cat", (0, 0, 100, 100))]], crowds=[1])
    detections = make_detections((1, "cat", (10, 10, 20, 20), 0.9))
    assert find_outcomes(truth, detections, match_detections(truth, detections), 0.5) == Outcomes((), (), (), (), ())


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.floats(0, 1))
def test_outcomes_agree_with_the_metrics(seed: int, threshold: float) -> None:
    truth = random_boxes(seed, 6)
    detections = random_detections(seed + 1, truth)
    matches = match_detections(truth, detections)
    outcomes = find_outcomes(truth, detections, matches, threshold)
    metrics = operating_point(matches.classes, threshold)
    found = len(outcomes.true_positives)
    detected = sum(outcomes.counts().values()) - len(outcomes.false_negatives)
    boxes = sum(not annotation.iscrowd for annotation in truth.annotations)
    assert found + len(outcomes.misclassified) + len(outcomes.false_negatives) == boxes
    assert (metrics.precision or 0) == pytest.approx(found / max(detected, 1))
    assert (metrics.recall or 0) == pytest.approx(found / max(boxes, 1))


def test_five_thousand_boxes_in_one_picture() -> None:
    cells = [("cell", (n % 100 * 2.0, n // 100 * 3.0, 1.5, 2.5)) for n in range(5000)]
    truth = manifest([cells], ("cell",))
    rows = [(1, name, box, 0.9 - n / 100) for n, (name, box) in enumerate(cells[::1000])]
    detections = make_detections(*rows, names=("cell",))
    matches = match_detections(truth, detections)
    assert matches.stats[8] == pytest.approx(5 / 5000)
    outcomes = find_outcomes(truth, detections, matches, 0.0)
    assert outcomes.counts() == {
        "correct": 5, "wrong_label": 0, "second_box": 0, "nothing_there": 0, "missed": 4995
    }  # fmt: skip
