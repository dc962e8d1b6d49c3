"""Thresholds keep what they promise; FPR95 and AUROC against scikit-learn; labels left out."""

import numpy as np
import pytest

from headstart.base.arrays import Floats, Ints
from headstart.metrics.estimate import Estimate
from headstart.metrics.rejection import Sample, leave_labels_out, rejection, threshold_that_keeps


def test_the_threshold_keeps_95_percent_of_new_pictures() -> None:
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(2000):
        scores = rng.normal(size=60)
        threshold, note = threshold_that_keeps(scores[:59], np.arange(59))
        assert note == ""
        kept.append(scores[59] <= threshold)
    assert np.mean(kept) == pytest.approx(57 / 60, abs=0.015)


def test_too_few_pictures_turn_nothing_away_and_too_few_groups_have_a_note() -> None:
    threshold, note = threshold_that_keeps(np.arange(18.0), np.arange(18))
    assert threshold == float("inf")
    assert note == (
        "no picture is turned away: a threshold that keeps 95 % needs 19 pictures that were not trained on, and there "
        "are 18"
    )
    threshold, note = threshold_that_keeps(np.arange(100.0), np.arange(100) // 10)
    assert threshold == 95  # rank 96 of 100
    assert note == (
        "the threshold comes from only 10 independent groups (19 are needed): of pictures from other groups fewer than "
        "95 % may be kept"
    )


def test_the_figures_are_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    known, foreign = rng.normal(size=80).round(1), (rng.normal(size=50) + 1.5).round(1)
    figures = rejection(known, np.arange(80), foreign, np.arange(80, 130), 1.6)
    truth = np.repeat([0, 1], [80, 50])
    assert figures.auroc.value is not None
    assert figures.auroc.value == pytest.approx(metrics.roc_auc_score(truth, np.concatenate([known, foreign])))
    assert figures.auroc.low is not None
    assert figures.auroc.high is not None
    assert figures.auroc.low < figures.auroc.value < figures.auroc.high
    assert figures.auroc.note == ""
    assert figures.fpr95.value == (foreign <= 1.6).mean()
    assert figures.pictures == 50
    assert figures.fpr95.low is not None
    assert figures.fpr95.low < (figures.fpr95.value or 0)


def auroc_of(known: Floats, known_units: Ints, foreign: Floats, foreign_units: Ints) -> Estimate:
    return rejection(known, known_units, foreign, foreign_units, 0.0).auroc


def test_the_interval_of_auroc_is_over_the_units_of_both_sides() -> None:
    rng = np.random.default_rng(2)
    known, foreign = rng.normal(size=40), rng.normal(size=30) + 1
    once = auroc_of(known, np.arange(40), foreign, np.arange(40, 70))
    repeated = auroc_of(
        np.repeat(known, 10), np.repeat(np.arange(40), 10), np.repeat(foreign, 10), np.repeat(np.arange(40, 70), 10)
    )
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high), abs=0.01)
    single = auroc_of(np.repeat(known, 10), np.arange(400), np.repeat(foreign, 10), np.arange(400, 700))
    assert single.low is not None
    assert once.low is not None
    assert single.low > once.low + 0.04, "as many pictures that are alone show more"


@pytest.mark.parametrize(("known", "foreign"), [(6, 192), (192, 6)])
def test_a_few_units_on_either_side_have_a_note(known: int, foreign: int) -> None:
    rng = np.random.default_rng(0)
    units = np.arange(known + foreign)
    assert auroc_of(rng.normal(size=known), units[:known], rng.normal(size=foreign), units[known:]).note == (
        "only 6 units"
    )


def test_the_interval_of_auroc_covers() -> None:
    """60 known pictures and 32 generated ones, true area 0.95."""
    rng, inside, units = np.random.default_rng(3), 0, np.arange(92)
    for _ in range(1000):
        found = auroc_of(rng.normal(size=60), units[:60], rng.normal(size=32) + 1.645 * np.sqrt(2), units[60:])
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 0.95 <= found.high
    assert 0.93 < inside / 1000 < 0.995


def sample(counts: list[int], seed: int) -> Sample:
    """Three labels in directions of their own; the last two lie close to each other."""
    rng = np.random.default_rng(seed)
    labels: Ints = np.repeat(np.arange(3), counts)
    centres: Floats = np.array([[4.0, 0, 0, 1], [0, 4, 0, 1], [0, 4, 0.3, 1]])
    return Sample(centres[labels] + rng.normal(size=(len(labels), 4)) * 0.3, labels, np.arange(len(labels)))


def test_a_label_left_out_is_foreign() -> None:
    figures = leave_labels_out(sample([90, 90, 90], 0), sample([40, 40, 40], 1), sample([40, 40, 40], 2), [4])
    assert sorted(figures) == [0, 1, 2]
    assert figures[0].pictures == 80, "those of val and test"
    assert figures[0].fpr95.value == 0
    assert figures[0].auroc.value == figures[0].auroc.high == 1
    assert 0.9 < (figures[0].auroc.low or 0) < 0.99, "that 80 pictures are all stranger does not prove that all are"
    assert (figures[2].fpr95.value or 0) > 0.7, "it looks like another label"
    assert (figures[2].auroc.value or 0) < 0.75


def test_a_label_without_pictures_to_measure_with_is_left_out_of_the_figures() -> None:
    figures = leave_labels_out(sample([90, 90, 90], 0), sample([40, 40, 0], 1), sample([40, 40, 0], 2), [4])
    assert sorted(figures) == [0, 1]
    assert leave_labels_out(sample([90, 0, 0], 0), sample([40, 0, 0], 1), sample([40, 0, 0], 2), [4]) == {}
