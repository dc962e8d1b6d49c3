"""Units of pictures: their weights, and the design effect."""

import numpy as np
import pytest

from headstart.metrics.cluster import Z, design_effect, sum_by_unit, weigh_sizes, weigh_units


def test_sums_are_by_unit_in_the_order_of_their_numbers() -> None:
    units = np.array([7, 3, 7, 5])
    assert sum_by_unit(np.array([1.0, 2, 3, 4]), units).tolist() == [2, 4, 4]
    assert sum_by_unit(np.array([[1.0, 0], [2, 1], [3, 1], [4, 0]]), units).tolist() == [[2, 1], [4, 0], [4, 1]]


def test_pictures_that_are_alone_have_no_design_effect() -> None:
    found = design_effect(np.array([0.5, -0.5] * 10), weigh_units(np.ones(20), np.arange(20)), 5.0, 10)
    assert (found.effect, found.quantile) == (1.0, Z)
    assert found.effective_size(20) == 20


def test_the_design_effect_of_boxes_worked_by_hand() -> None:
    """Two pictures of 3 boxes and one of 1, which weighs less: 49 / 19 = 2.6 pictures of one size."""
    weights = weigh_sizes(np.array([3.0, 3, 1]))
    assert weights.count == 3
    assert weights.effective == pytest.approx(49 / 19)
    assert weights.alike == pytest.approx(19 / 7)
    assert weights.shrinkage[2] == pytest.approx(1 - 2 / 7 + 19 / 49)


def test_without_a_mistake_all_pictures_of_a_unit_may_be_alike() -> None:
    weights = weigh_sizes(np.full(30, 10.0))
    assert design_effect(np.zeros(30), weights, 0.0, 0) == design_effect(np.zeros(30), weights, 1.0, 0)
    assert design_effect(np.zeros(30), weights, 0.0, 0).effect == pytest.approx(10)
    assert design_effect(np.zeros(30), weights, 1.0, 1000).effect == pytest.approx(1, abs=0.02)


def test_a_unit_that_draws_the_estimate_towards_itself_counts_in_full() -> None:
    """A large unit's squared influence is too small: corrected, alike units of any sizes have their true variance."""
    rng, sizes = np.random.default_rng(0), np.array([60, 30, 15, 8, 4, 2, 1, 1] * 3)
    seen, total = [], sizes.sum()
    for _ in range(4000):
        hits = sizes * (rng.random(len(sizes)) < 0.7)
        share = hits.sum() / total
        seen.append(((hits - share * sizes) ** 2 / weigh_sizes(sizes.astype(np.float64)).shrinkage).sum())
    assert np.mean(seen) == pytest.approx(0.7 * 0.3 * (sizes**2).sum(), rel=0.03)
