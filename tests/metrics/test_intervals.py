"""Intervals of shares, means and differences against published values, exact coverage and their own properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from headstart.metrics.intervals import (
    SAME_MODEL,
    difference_interval,
    mean_interval,
    ratio_interval,
    real_mean_interval,
    share_interval,
)

seeds = st.integers(0, 2**31)


def hits(right: int, of: int) -> np.ndarray:
    return np.repeat([1.0, 0.0], [right, of - right])


def wilson(right: int, of: int) -> tuple[float, float]:
    interval = stats.binomtest(right, of).proportion_ci(method="wilson")
    return interval.low, interval.high


# --- shares ---


@pytest.mark.parametrize(("right", "of"), [(263, 263), (35, 50), (81, 263), (15, 148), (200, 400)])
def test_pictures_that_are_alone_have_wilsons_interval(right: int, of: int) -> None:
    found = mean_interval(hits(right, of), np.arange(of))
    assert (found.low, found.high) == pytest.approx(wilson(right, of))
    assert found.note == ""


def test_44_right_answers_of_44_are_no_proof_of_100_percent() -> None:
    found = mean_interval(np.ones(44), np.arange(44))
    assert found.low == pytest.approx(44 / (44 + 1.96**2), abs=1e-4)
    assert found.high == 1


@pytest.mark.parametrize("pictures", [20, 44, 60, 150, 400])
def test_the_exact_coverage_of_a_share_is_at_least_93_percent_at_every_rate(pictures: int) -> None:
    """Wilson's alone falls to 84 % near 1."""
    right = np.arange(pictures + 1)
    ends = np.array([share_interval(x / pictures, pictures) for x in right])
    for rate in np.linspace(0.5, 0.9999, 1500):
        inside = (ends[:, 0] <= rate) & (rate <= ends[:, 1])
        assert stats.binom.pmf(right, pictures, rate)[inside].sum() > (0.9295 if rate >= 0.7 else 0.928)


def test_units_that_are_all_alike_count_once() -> None:
    """40 pictures of each of 30 units, right or wrong as a whole: the interval is nearly that of 30 pictures."""
    found = mean_interval(np.repeat(hits(24, 30), 40), np.repeat(np.arange(30), 40))
    low, high = wilson(24, 30)
    assert found.low == pytest.approx(low, abs=0.012)
    assert found.high == pytest.approx(high, abs=0.012)
    assert found.note == ""


def test_units_without_a_mistake_may_be_all_alike() -> None:
    found = mean_interval(np.ones(400), np.repeat(np.arange(40), 10))
    assert (found.low, found.high) == pytest.approx(wilson(40, 40))


def test_mistakes_that_are_spread_over_the_units_widen_the_interval_little() -> None:
    units = np.arange(1000) // 10
    alone = mean_interval(hits(700, 1000), np.arange(1000))
    values = np.random.default_rng(0).permutation(hits(700, 1000))
    grouped = mean_interval(values, units)
    assert alone.high is not None
    assert alone.low is not None
    assert grouped.low is not None
    assert grouped.high is not None
    assert alone.high - alone.low <= grouped.high - grouped.low < 1.2 * (alone.high - alone.low)


def test_few_units_are_said() -> None:
    assert mean_interval(np.ones(190), np.arange(190) // 10).note == "only 19 units"
    assert mean_interval(np.ones(3), np.zeros(3, dtype=int)).note == "only 1 unit"
    assert mean_interval(np.ones(20), np.arange(20)).note == ""


def test_units_of_very_unequal_size_count_as_fewer() -> None:
    """30 units, of which three have 300 of 327 pictures: they weigh as 327^2 / (3 100^2 + 27) = 3.6 of one size."""
    units = np.concatenate([np.repeat(np.arange(3), 100), np.arange(3, 30)])
    values = (np.arange(327) % 10 != 0).astype(np.float64)
    assert mean_interval(values, units).note == "a few of the 30 units have most of the pictures"
    assert real_mean_interval(values, units).note == "only 30 units"
    assert difference_interval(values, units).note == "a few of the 30 units have most of the pictures"


def test_a_ratio_counts_only_pictures_with_a_denominator() -> None:
    numerator, denominator = np.array([1.0, 0, 0, 1, 1]), np.array([1.0, 1, 0, 1, 1])
    found = ratio_interval(numerator, denominator, np.arange(5))
    assert found == mean_interval(np.array([1.0, 0, 1, 1]), np.arange(4))
    assert found.note == "only 4 units"


def test_boxes_of_one_picture_are_a_unit() -> None:
    """2 of 4 boxes in every picture: as certain as boxes that are independent, not as four times fewer."""
    even = ratio_interval(np.full(50, 2.0), np.full(50, 4.0), np.arange(50))
    clumped = ratio_interval(np.repeat([4.0, 0.0], 25), np.full(50, 4.0), np.arange(50))
    assert even.value == clumped.value == 0.5
    assert even.low == pytest.approx(wilson(100, 200)[0], abs=0.015)
    assert clumped.low == pytest.approx(wilson(25, 50)[0], abs=0.015)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, pictures=st.integers(1, 80), units=st.integers(1, 80), rate=st.floats(0, 1))
def test_a_share_lies_in_its_interval_which_has_a_width(seed: int, pictures: int, units: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    found = mean_interval((rng.random(pictures) < rate).astype(np.float64), rng.integers(0, units, pictures))
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high - found.low > 0.01


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_names_and_order_of_units_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, units = (rng.random(50) < 0.8).astype(np.float64), rng.integers(0, 12, 50)
    order = rng.permutation(50)
    names = rng.permutation(1000)
    one, other = mean_interval(values, units), mean_interval(values[order], names[units[order]])
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))


def covers(groups: int, size: int, rate: float, times: int = 1500) -> float:
    """Coverage where all pictures of a group are right or wrong together."""
    rng, inside = np.random.default_rng(5), 0
    for _ in range(times):
        found = mean_interval(np.repeat((rng.random(groups) < rate) * 1.0, size), np.repeat(np.arange(groups), size))
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= rate <= found.high
    return inside / times


def test_alike_tens_are_covered() -> None:
    """The percentile bootstrap over pictures covers 48 to 60 % here."""
    assert 0.925 < covers(groups=40, size=10, rate=0.9) < 0.98
    assert covers(groups=20, size=10, rate=0.8) > 0.925


# --- differences ---


def test_a_difference_is_bonett_and_prices() -> None:
    """15 gained, 5 lost, of 100: (15 - 5) / 102 +- 1.96 sqrt(((16 + 6) / 102 - (10 / 102)^2) / 102)."""
    differences = np.repeat([1.0, -1.0, 0.0], [15, 5, 80])
    found = difference_interval(differences, np.arange(100))
    half = 1.959964 * np.sqrt((22 / 102 - (10 / 102) ** 2) / 102)
    assert found.value == pytest.approx(0.1)
    assert found.low == pytest.approx(10 / 102 - half)
    assert found.high == pytest.approx(10 / 102 + half)


def test_two_models_that_differ_nowhere_may_differ_elsewhere() -> None:
    found = difference_interval(np.zeros(44), np.arange(44))
    assert found.value == 0
    assert found.low is not None
    assert found.high is not None
    assert found.high == pytest.approx(-found.low)
    assert found.high > 0.05
    assert SAME_MODEL.low is None
    assert SAME_MODEL.note == "the same model"


def test_differences_that_come_by_units_are_less_certain() -> None:
    differences = np.repeat([1.0, -1.0, 0.0], [40, 20, 340])
    alone, grouped = (difference_interval(differences, units) for units in (np.arange(400), np.arange(400) // 10))
    assert alone.low is not None
    assert grouped.low is not None
    assert alone.low > 0 > grouped.low


@settings(max_examples=40, deadline=None)
@given(seed=seeds, pictures=st.integers(1, 60), units=st.integers(1, 60), rate=st.floats(0, 1))
def test_a_difference_lies_in_its_interval(seed: int, pictures: int, units: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    differences = rng.choice([-1.0, 0.0, 1.0], pictures, p=[rate / 3, 1 - rate, rate * 2 / 3])
    found = difference_interval(differences, rng.integers(0, units, pictures))
    assert found.low is not None
    assert found.high is not None
    assert -1 <= found.low <= differences.mean() <= found.high <= 1
    assert found.high > found.low


# --- unbounded values ---


def test_a_symmetric_mean_has_the_t_interval() -> None:
    values = np.concatenate([np.linspace(0, 1, 30), np.linspace(1, 2, 30)])
    found = real_mean_interval(values, np.arange(60))
    theirs = stats.ttest_1samp(values, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))


def test_a_skewed_mean_is_covered_where_the_t_interval_is_not() -> None:
    rng, truth, t_inside, inside = np.random.default_rng(0), special.gamma(2.5), 0, 0
    for _ in range(2000):
        values = rng.exponential(size=20) ** 1.5
        theirs, found = stats.ttest_1samp(values, 0).confidence_interval(), real_mean_interval(values, np.arange(20))
        assert found.low is not None
        assert found.high is not None
        t_inside += theirs.low <= truth <= theirs.high
        inside += found.low <= truth <= found.high
    assert t_inside / 2000 < 0.9
    assert inside / 2000 > 0.925


def test_a_mean_of_alike_values_is_that_of_their_units() -> None:
    values = np.random.default_rng(1).exponential(size=50)
    one = real_mean_interval(values, np.arange(50))
    ten = real_mean_interval(np.repeat(values, 10), np.repeat(np.arange(50), 10))
    assert (ten.value, ten.low, ten.high) == pytest.approx((one.value, one.low, one.high))


def test_an_interval_that_cannot_be_given_says_so() -> None:
    assert real_mean_interval(np.ones(3), np.zeros(3, dtype=int)).note == "no interval: one unit shows no spread"
    assert real_mean_interval(np.ones(3), np.arange(3)).note == "no interval: all values are the same"
    found = real_mean_interval(np.full(30, 0.1), np.arange(30), expected_variance=0.04)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.1 < found.high
