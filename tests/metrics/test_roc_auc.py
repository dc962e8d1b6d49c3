"""ROC AUC and its interval: scikit-learn's value, DeLong's variance worked directly, groups, and areas of 0 and 1."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn import metrics

from headstart.base.arrays import Floats, Ints
from headstart.metrics.roc_auc import roc_auc_interval
from synthetic_logits import make_logits


def two_labels(positive: Floats) -> Floats:
    return np.stack([1 - positive, positive], axis=1)


def delong(scores: Floats, labels: Ints) -> tuple[float, float]:
    """Area and DeLong's standard error, by all pairs."""
    of = [scores[labels == c] for c in (0, 1)]
    pairs = (of[1][:, None] > of[0]) + 0.5 * (of[1][:, None] == of[0])
    return pairs.mean(), np.sqrt(sum(pairs.mean(axis=a).var(ddof=1) / pairs.shape[1 - a] for a in (0, 1)))


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_area_is_scikit_learns(classes: int) -> None:
    logits = make_logits(150, classes, seed=1)
    probabilities = special.softmax(logits.test, axis=1).round(1) + 1e-3  # ties
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    theirs = metrics.roc_auc_score(
        logits.test_labels, probabilities[:, 1] if classes == 2 else probabilities, multi_class="ovr"
    )
    assert roc_auc_interval(probabilities, logits.test_labels, np.arange(150)).value == pytest.approx(theirs)


def test_of_many_mistakes_the_interval_is_logit_delongs() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 4000)
    scores = special.expit(rng.normal(size=4000) + labels)
    area, error = delong(scores, labels)
    logit, width = special.logit(area), 1.959964 * error / (area * (1 - area))
    found = roc_auc_interval(two_labels(scores), labels, np.arange(4000))
    assert found.low == pytest.approx(special.expit(logit - width), abs=2e-4)
    assert found.high == pytest.approx(special.expit(logit + width), abs=2e-4)


def test_a_perfect_ranking_of_few_pictures_is_no_proof() -> None:
    labels = np.repeat([0, 1], [51, 9])
    found = roc_auc_interval(two_labels(labels * 0.8 + 0.1), labels, np.arange(60))
    assert found.value == found.high == 1
    assert found.low is not None
    assert 0.7 < found.low < 0.9
    worst = roc_auc_interval(two_labels(0.9 - labels * 0.8), labels, np.arange(60))
    assert worst.value == worst.low == 0
    assert worst.high is not None
    assert worst.high > 0.05


def test_60_pictures_15_percent_positive_true_area_098_are_covered() -> None:
    """The percentile bootstrap covers 78.5 % here."""
    rng, labels, inside = np.random.default_rng(3), np.repeat([0, 1], [51, 9]), 0
    shift = special.ndtri(0.98) * np.sqrt(2)
    for _ in range(2000):
        found = roc_auc_interval(two_labels(special.expit(rng.normal(size=60) + shift * labels)), labels, np.arange(60))
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 0.98 <= found.high
    assert 0.94 < inside / 2000 < 0.99


def test_an_area_just_below_1_leaves_hardly_more_doubt_than_1() -> None:
    """The logit interval of such an area begins at 0.07."""
    labels = np.repeat([0, 1], [300, 40])
    scores = np.linspace(0, 1, 340)
    of_one = roc_auc_interval(two_labels(scores), labels, np.arange(340))
    scores[299], scores[300] = scores[300], scores[299]
    of_almost_one = roc_auc_interval(two_labels(scores), labels, np.arange(340))
    assert of_almost_one.value is not None
    assert 0.9999 < of_almost_one.value < 1
    assert of_one.low is not None
    assert of_almost_one.low == pytest.approx(of_one.low, abs=0.03)


def test_pictures_that_repeat_ten_times_count_once() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 120)
    scores = special.expit(rng.normal(size=120) + labels)
    once = roc_auc_interval(two_labels(scores), labels, np.arange(120))
    repeated = roc_auc_interval(two_labels(np.repeat(scores, 10)), np.repeat(labels, 10), np.repeat(np.arange(120), 10))
    assert repeated.value == pytest.approx(once.value)
    assert repeated.low == pytest.approx(once.low, abs=0.01)
    assert repeated.high == pytest.approx(once.high, abs=0.01)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    pictures=st.integers(0, 40),
    classes=st.integers(2, 6),
    units=st.integers(1, 50),
    scale=st.floats(0.01, 50),
)
def test_the_area_lies_in_its_interval_which_has_a_width(
    seed: int, pictures: int, classes: int, units: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, pictures)])
    logits = scale * (rng.normal(size=(len(labels), classes)) + np.eye(classes)[labels])
    found = roc_auc_interval(special.softmax(logits, axis=1), labels, rng.integers(0, units, len(labels)))
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high - found.low > 1e-3
