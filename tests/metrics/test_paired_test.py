"""Paired tests of two models: McNemar's, whole units exchanged, and the level that each challenger must reach."""

import itertools

import numpy as np
import pytest
from scipy import stats

from headstart.base.arrays import Floats
from headstart.metrics.paired_test import LEVEL, challenger_level, sign_flip_test, swap_test


def wins(candidate: int, baseline: int, ties: int = 0) -> Floats:
    return np.array([1.0] * candidate + [-1.0] * baseline + [0.0] * ties)


@pytest.mark.parametrize(("candidate", "baseline"), [(4, 0), (6, 0), (9, 2), (5, 5), (40, 20), (700, 600), (0, 0)])
def test_single_pictures_are_mcnemars_exact_test(candidate: int, baseline: int) -> None:
    differences = wins(candidate, baseline, ties=30)
    found = sign_flip_test(differences, np.arange(len(differences)))
    expected = stats.binomtest(candidate, candidate + baseline).pvalue if candidate + baseline else 1.0
    assert found.p == pytest.approx(expected, rel=1e-9)
    assert sign_flip_test(-differences, np.arange(len(differences))).p == found.p


def test_four_to_none_is_no_difference() -> None:
    found = sign_flip_test(wins(4, 0, 60), np.arange(64))
    assert (found.p, found.method) == (0.125, "McNemar's exact test")


def test_ten_alike_pictures_are_one_observation() -> None:
    """20 to 0 in two groups of ten: two observations, not twenty."""
    differences, groups = wins(20, 0, 20), np.arange(40) // 10
    found = sign_flip_test(differences, groups)
    assert (found.p, found.method) == (0.5, "exact sign-flip test over units")
    assert sign_flip_test(differences, np.arange(40)).p < 1e-5


def test_units_of_several_pictures_are_all_their_sign_flips() -> None:
    rng = np.random.default_rng(1)
    differences, units = rng.integers(-1, 2, 60).astype(float), rng.integers(0, 11, 60)
    sums = [differences[units == unit].sum() for unit in range(11)]
    flipped = [abs(np.dot(signs, sums)) for signs in itertools.product((-1, 1), repeat=11)]
    expected = np.mean([value >= abs(sum(sums)) for value in flipped])
    assert sign_flip_test(differences, units).p == pytest.approx(expected)


@pytest.mark.parametrize("count", [12, 50])
def test_real_differences_are_scipys_permutation_test(count: int) -> None:
    rng = np.random.default_rng(0)
    differences = rng.normal(0.3, 1, count)
    expected = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(2)
    ).pvalue
    found = sign_flip_test(differences, np.arange(count))
    assert found.p == pytest.approx(expected, abs=1e-12 if count == 12 else 0.01)
    assert found.method == ("exact sign-flip test" if count == 12 else "sign-flip test, 10,000 permutations over units")


@pytest.mark.parametrize("count", [10, 60])
def test_a_swapped_metric_that_is_a_mean_is_the_sign_flip_test(count: int) -> None:
    rng = np.random.default_rng(3)
    both = rng.normal(0, 1, 2 * count) + np.repeat([0.3, 0.0], count)
    units = np.arange(count) // 2
    found = swap_test(lambda weights: weights @ both / count, units, np.ones(count, bool))
    expected = sign_flip_test(both[:count] - both[count:], units)
    assert found.p == pytest.approx(expected.p, abs=1e-12 if count == 10 else 0.01)
    assert swap_test(lambda weights: weights @ both, units, np.zeros(count, bool)).p == 1


def test_a_small_level_has_permutations_enough_to_be_reached() -> None:
    differences = np.linspace(0.5, 1.5, 60)
    assert sign_flip_test(differences, np.arange(60)).p == pytest.approx(1 / 10_001)
    found = sign_flip_test(differences, np.arange(60), level=challenger_level(50))
    assert found.p < challenger_level(50) < 1 / 10_001


def test_the_levels_of_all_challengers_add_up_to_the_level() -> None:
    assert [challenger_level(number) for number in (1, 2)] == pytest.approx([0.05, 0.05 / 3])
    one_sided = (challenger_level(number) / 2 for number in range(1, 100_000))
    assert sum(one_sided) == pytest.approx(LEVEL, rel=1e-4) == pytest.approx(0.05, rel=1e-4)


def test_twenty_equal_challengers_seldom_give_a_false_champion() -> None:
    """Champion and challengers are right on the same share of pictures, so that each promotion is a false one.

    With the rule that the percentile interval of the difference lies above 0, the same simulation promotes one of
    twenty in more than a fifth of the runs.
    """
    rng, runs, pictures = np.random.default_rng(0), 400, 150
    promoted = promoted_by_interval = 0
    for _ in range(runs):
        hard = rng.random(pictures) < 0.3  # pictures on which models differ at all; on the others all are right
        answers = np.where(hard, rng.random((21, pictures)) < 0.5, True).astype(float)
        differences = answers[1:] - answers[0]
        promoted += any(
            row.sum() > 0 and sign_flip_test(row, np.arange(pictures)).p <= challenger_level(number)
            for number, row in enumerate(differences, start=1)
        )
        error = differences.std(axis=1) / np.sqrt(pictures)
        promoted_by_interval += bool((differences.mean(axis=1) > 1.96 * error).any())
    assert promoted / runs <= 0.05
    assert promoted_by_interval / runs > 0.15
