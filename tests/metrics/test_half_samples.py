"""Intervals by half-sampling: the halves, cases worked by hand, and how often the intervals contain a known truth."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from headstart.metrics.detection import ap_interval
from headstart.metrics.half_samples import (
    Support,
    half_sample_difference,
    half_sample_interval,
    half_samples,
    make_support,
)

# By its path: with benchmarks/ in sys.path its engine.py would hide tests/engine/.
_spec = importlib.util.spec_from_file_location(
    "simulated_detector", Path(__file__).parents[2] / "benchmarks/simulated_detector.py"
)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = _module
_spec.loader.exec_module(_module)
SimulatedDetector = _module.SimulatedDetector


@pytest.mark.parametrize("count", [2, 7, 10])
def test_halves_are_of_whole_units(count: int) -> None:
    units = np.repeat(np.arange(count) + 3, 1 + np.arange(count) % 3)
    (rows,) = half_samples(units, 50, seed=0)
    assert set(np.unique(rows)) == {0, 1}
    for row in rows:
        drawn = np.unique(units[row == 1])
        assert len(drawn) == count // 2
        assert np.isin(units, drawn)[row == 0].sum() == 0
    in_both = (rows[0::2] * rows[1::2]).sum()
    assert in_both == 0, "a permutation's two halves have no unit in common"


def test_blocks_do_not_change_the_rows() -> None:
    units = np.arange(30)
    (whole,) = half_samples(units, 50, seed=1)
    blocks = list(half_samples(units, 50, seed=1, width=100_000))
    assert len(blocks) > 1
    assert np.array_equal(whole, np.concatenate(blocks))


def test_the_interval_of_a_share_is_wilsons() -> None:
    """A mean of 40 independent values: Wilson's interval with Student's quantile."""
    right = np.arange(40) % 3 > 0
    rows = np.concatenate(list(half_samples(np.arange(40), 20_000, seed=0)))
    support = make_support([np.ones(40, np.int64)], np.arange(40))
    assert support == Support((40.0,), 40, 40)
    found = half_sample_interval(float(right.mean()), rows @ right / rows.sum(axis=1), support)
    share, quantile, size = right.mean(), stats.t.ppf(0.975, 39), 39  # s^2 has 39 in its denominator
    centre = (share + quantile**2 / (2 * size)) / (1 + quantile**2 / size)
    half = quantile / (1 + quantile**2 / size) * np.sqrt(share * (1 - share) / size + quantile**2 / (4 * size**2))
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=0.003)


def test_a_bias_of_the_halves_moves_the_interval() -> None:
    support = Support((40.0,), 20, 20)
    spread = np.linspace(-0.1, 0.1, 101)
    above, level = (half_sample_interval(0.5, 0.5 + shift + spread, support) for shift in (0.05, 0.0))
    assert (above.low or 0) < (level.low or 0) - 0.03
    assert (above.high or 0) < (level.high or 0)


def test_an_interval_contains_its_figure_whatever_the_bias() -> None:
    found = half_sample_interval(0.5, np.full(10, 0.9), Support((1000.0,), 20, 20))
    assert found.high is not None
    assert found.high >= 0.5


def test_a_rare_label_makes_a_mean_over_labels_uncertain() -> None:
    nothing_seen = np.ones(10)
    even, uneven = (half_sample_interval(1.0, nothing_seen, Support(n, 40, 40)) for n in ((40.0, 40.0), (76.0, 4.0)))
    assert (uneven.low or 1) < (even.low or 0) - 0.1


def test_two_units_have_students_quantile_and_one_has_none() -> None:
    two = half_sample_difference(0.1, np.array([0.0, 0.2] * 50), Support((10.0,), 2, 2))
    width = stats.t.ppf(0.975, 1) * np.sqrt(0.01 + 0.01 / 2)
    assert two.low == pytest.approx(max(0.1 - width, -1))
    assert (two.high, two.note) == (1.0, "only 2 units")
    assert half_sample_difference(0.1, np.array([0.1]), Support((10.0,), 1, 2)).low is None
    assert half_sample_interval(0.1, np.array([np.nan]), Support((10.0,), 1, 1)).low is None


@pytest.mark.parametrize(("skill", "unit", "pictures"), [(-0.45, 1, 20), (1.35, 1, 40), (0.35, 5, 100)])
def test_the_interval_of_ap50_covers_the_truth(skill: float, unit: int, pictures: int) -> None:
    """300 test sets of a detector whose AP50 is known; a percentile bootstrap's intervals contain it in 83 to 91 %."""
    (population,) = SimulatedDetector((skill,)).draw(np.random.default_rng(0), 20_000)
    truth = population.stats[1]
    detector, rng, inside = SimulatedDetector((skill,), unit=unit), np.random.default_rng(1), 0
    for _ in range(300):
        found = ap_interval(detector.draw(rng, pictures)[0], "AP50", resamples=100)
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= truth <= found.high
    assert 0.90 <= inside / 300 <= 0.99
