"""Prediction sets hold the right label as often as promised: against MAPIE, against the formula, and by simulation."""

from collections.abc import Callable

import numpy as np
import pytest

from headstart.base.arrays import Floats, Ints
from headstart.metrics.conformal import MIN_UNITS, conformal_quantile, fit_prediction_sets


def draw(count: int, rng: np.random.Generator, rates: tuple[float, ...] = (0.5, 0.5)) -> tuple[Floats, Ints]:
    """Probabilities of a model that is no good match of its labels: it is too sure, and worse at the last label."""
    labels = rng.choice(len(rates), count, p=rates)
    logits = rng.normal(size=(count, len(rates))) * 2
    logits[np.arange(count), labels] += np.where(labels == len(rates) - 1, 1.0, 2.5)
    odds = np.exp(1.7 * logits)
    return odds / odds.sum(1, keepdims=True), labels


@pytest.mark.parametrize("count", [9, 10, 11, 19, 20, 99, 100, 137])
def test_the_quantile_has_the_exact_rank_of_a_finite_sample(count: int) -> None:
    scores = np.random.default_rng(count).permutation(np.arange(1, count + 1)) / count
    rank = int(np.ceil(round((count + 1) * 0.9, 9)))
    assert conformal_quantile(scores, np.arange(count), 0.9) == scores.max() * rank / count


def test_too_few_pictures_promise_nothing() -> None:
    assert conformal_quantile(np.arange(8.0), np.arange(8), 0.9) == float("inf")
    assert conformal_quantile(np.arange(9.0), np.arange(9), 0.9) == 8
    assert conformal_quantile(np.zeros(0), np.zeros(0, dtype=np.int64), 0.9) == float("inf")


def test_pictures_of_one_unit_share_its_weight() -> None:
    """Twenty units: nineteen of one picture with scores 1 to 19, and one of a thousand with the highest score."""
    scores = np.concatenate([np.arange(1.0, 20), np.full(1000, 30.0)])
    units = np.concatenate([np.arange(19), np.full(1000, 19)])
    assert conformal_quantile(scores, units, 0.9) == 19  # rank 19 of 20 units; by pictures it would be 30
    assert conformal_quantile(scores, np.arange(len(scores)), 0.9) == 30


def simulate(
    times: int, count: int, rates: tuple[float, ...], units: Callable[[np.random.Generator], Ints] | None = None
) -> tuple[float, Floats, Floats]:
    """Mean coverage, coverage by label, and set sizes' mean, over `times` calibrations."""
    hits, sizes = [], []
    by_label = np.zeros((2, len(rates)))
    rng = np.random.default_rng(5)
    for _ in range(times):
        probabilities, labels = draw(count + 200, rng, rates)
        of_unit = np.arange(count) if units is None else units(rng)
        sets = fit_prediction_sets(probabilities[:count], labels[:count], of_unit, 0.9)
        contained = sets.contain(probabilities[count:])
        hit = contained[np.arange(200), labels[count:]]
        hits.append(hit.mean())
        sizes.append(contained.sum(1).mean())
        for label in range(len(rates)):
            by_label[:, label] += hit[labels[count:] == label].sum(), (labels[count:] == label).sum()
    return float(np.mean(hits)), by_label[0] / by_label[1], np.array([np.mean(sizes)])


def test_every_label_is_covered_where_it_has_pictures_enough() -> None:
    _, by_label, _ = simulate(300, 600, (0.6, 0.25, 0.15))
    assert by_label == pytest.approx(np.full(3, 0.905), abs=0.01)


def test_labels_with_few_pictures_are_covered_together() -> None:
    """40 pictures over three labels: one threshold, and the share holds for the pictures all together."""
    coverage, by_label, _ = simulate(800, 40, (0.4, 0.35, 0.25))
    assert coverage == pytest.approx(0.91, abs=0.015)  # 37 of 41
    assert by_label[2] < coverage, "the label at which the model is worse pays for the others"


def test_alike_pictures_of_a_unit_do_not_spoil_the_coverage() -> None:
    """Units of ten pictures of one score: pictures counted as independent promise more than they keep."""
    rng = np.random.default_rng(1)
    covered = {"units": 0, "pictures": 0}
    for _ in range(2000):
        scores = rng.normal(size=13)
        units = np.repeat(np.arange(12), 10)
        alike = np.repeat(scores[:12], 10)
        covered["units"] += scores[12] <= conformal_quantile(alike, units, 0.9)
        covered["pictures"] += scores[12] <= conformal_quantile(alike, np.arange(120), 0.9)
    assert covered["units"] / 2000 == pytest.approx(12 / 13, abs=0.015)
    assert covered["pictures"] / 2000 < 0.87


def test_a_set_is_never_empty_and_the_note_tells_of_too_few_pictures() -> None:
    rng = np.random.default_rng(0)
    probabilities, labels = draw(300, rng)
    sets = fit_prediction_sets(probabilities, labels, np.arange(300), 0.6)
    assert sets.note == ""
    assert sets.thresholds.min() > 0.5, "below this confidence LAC has empty sets"
    assert (sets.contain(probabilities).sum(1) == 1).all()
    few = fit_prediction_sets(probabilities[:8], labels[:8], np.arange(8), 0.9)
    assert few.contain(probabilities).all()
    assert few.note == (
        "prediction sets at a confidence of 0.9 need at least 9 pictures to calibrate on, and there are 8: every set "
        "holds all labels"
    )


def test_too_few_units_promise_for_these_units_alone() -> None:
    """Seven modules of many pictures: the sets are those of independent pictures, and the note tells it."""
    probabilities, labels = draw(280, np.random.default_rng(0))
    sets = fit_prediction_sets(probabilities, labels, np.arange(280) % 7, 0.9)
    np.testing.assert_array_equal(
        sets.thresholds, fit_prediction_sets(probabilities, labels, np.arange(280), 0.9).thresholds
    )
    assert sets.note == (
        "the pictures to calibrate on form only 7 independent groups (9 are needed): of pictures from other groups "
        "fewer than 90 % of the sets may hold the right label"
    )


def test_at_a_high_confidence_labels_share_until_they_are_enough() -> None:
    """At 0.99 a threshold takes 99 pictures: three labels of 60 share one."""
    probabilities, _ = draw(180, np.random.default_rng(0), (0.4, 0.3, 0.3))
    sets = fit_prediction_sets(probabilities, np.arange(180) % 3, np.arange(180), 0.99)
    assert len(set(sets.thresholds)) == 1
    assert sets.note == ""


def test_a_label_without_pictures_shares_its_threshold() -> None:
    rng = np.random.default_rng(0)
    probabilities, labels = draw(300, rng, (0.6, 0.4, 0.0))
    sets = fit_prediction_sets(probabilities, labels, np.arange(300), 0.9)
    counts = np.bincount(labels, minlength=3)
    smaller = int(counts[:2].argmin())
    assert counts.min() == 0
    assert counts[:2].min() > MIN_UNITS
    assert sets.thresholds[2] == sets.thresholds[smaller] != sets.thresholds[1 - smaller]


@pytest.mark.parametrize("seed", range(5))
def test_the_sets_are_those_of_mapie(seed: int) -> None:
    """MAPIE's split conformal classifier with LAC; ours adds the most probable label to its empty sets."""
    mapie = pytest.importorskip("mapie.classification", reason="pip install mapie==1.5.0")
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        """A model whose features are its probabilities."""

        classes_ = np.arange(3)

        def fit(self, x: Floats, y: Ints) -> "Given":
            return self

        def __sklearn_is_fitted__(self) -> bool:
            return True

        def predict_proba(self, x: Floats) -> Floats:
            return x

        def predict(self, x: Floats) -> Ints:
            return np.asarray(x.argmax(1))

    rng = np.random.default_rng(seed)
    probabilities, labels = draw(240, rng, (0.4, 0.35, 0.25))
    calibration, other = slice(0, 40), slice(40, None)
    conformal = mapie.SplitConformalClassifier(Given(), confidence_level=0.9, conformity_score="lac", prefit=True)
    conformal.conformalize(probabilities[calibration], labels[calibration])
    expected = conformal.predict_set(probabilities[other])[1][:, :, 0]
    ours = fit_prediction_sets(probabilities[calibration], labels[calibration], np.arange(40), 0.9)
    expected[~expected.any(1)] = np.eye(3, dtype=bool)[probabilities[other][~expected.any(1)].argmax(1)]
    np.testing.assert_array_equal(ours.contain(probabilities[other]), expected)
