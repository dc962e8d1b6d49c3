"""Thresholds keep what they promise; FPR95 and AUROC against scikit-learn; labels left out."""

import numpy as np
import pytest

from headstart.base.arrays import Floats, Ints
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
    figures = rejection(known, foreign, np.arange(50), 1.6)
    truth = np.repeat([0, 1], [80, 50])
    assert figures.auroc == pytest.approx(metrics.roc_auc_score(truth, np.concatenate([known, foreign])))
    assert figures.fpr95.value == (foreign <= 1.6).mean()
    assert figures.pictures == 50
    assert figures.fpr95.low is not None
    assert figures.fpr95.low < (figures.fpr95.value or 0)


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
    assert figures[0].auroc == 1
    assert (figures[2].fpr95.value or 0) > 0.7, "it looks like another label"
    assert figures[2].auroc < 0.75


def test_a_label_without_pictures_to_measure_with_is_left_out_of_the_figures() -> None:
    figures = leave_labels_out(sample([90, 90, 90], 0), sample([40, 40, 0], 1), sample([40, 40, 0], 2), [4])
    assert sorted(figures) == [0, 1]
    assert leave_labels_out(sample([90, 0, 0], 0), sample([40, 0, 0], 1), sample([40, 0, 0], 2), [4]) == {}
