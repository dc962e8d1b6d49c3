"""Pictures divided by a property: the slices, their figures, and how often one is called worse that is not."""

import numpy as np
import pytest
from scipy import stats

from headstart.metrics.intervals import mean_interval
from headstart.metrics.slices import Slicing, simultaneous_interval, slice_by_number, slice_by_value, slice_figures


def sizes(slicing: Slicing) -> dict[str, int]:
    counts = np.bincount(slicing.numbers, minlength=len(slicing.names)).tolist()
    return dict(zip(slicing.names, counts, strict=True))


def test_each_value_is_a_slice_and_small_ones_are_one_together() -> None:
    values = ["phone"] * 6 + ["scan"] * 4 + [None] * 5 + ["camera"] * 7 + ["film"]
    expected = {"camera": 7, "none": 5, "phone": 6, "others (2 with fewer than 5 pictures)": 5}
    assert sizes(slice_by_value("source", values)) == expected


def test_few_different_numbers_are_slices_and_many_are_quarters() -> None:
    few = slice_by_number("sure", np.array([0.5, 1.0, 10.0] * 6 + [np.nan] * 5))
    assert sizes(few) == {"0.5": 6, "1": 6, "10": 6, "none": 5}, "by the number, not by its text"
    many = slice_by_number("size", np.arange(100.0)[::-1], lambda value: f"{value:.0f} px")
    assert sizes(many) == {"0 px to 24 px": 25, "24 px to 49 px": 25, "49 px to 74 px": 25, "74 px to 99 px": 25}
    assert many.names[many.numbers[0]] == "74 px to 99 px"
    alike = slice_by_number("size", np.concatenate([np.zeros(80), np.arange(1.0, 21)]))
    assert sizes(alike) == {"0 to 20": 100}, "three of the quarters are one number"


def test_the_worst_slice_comes_first_with_an_interval_for_all_at_once() -> None:
    correct, units = np.array([1.0] * 40 + [0.0] * 12 + [1.0] * 8), np.arange(60)
    slicing = slice_by_value("source", ["good"] * 40 + ["bad"] * 20)
    bad, good = slice_figures([slicing], correct, units)
    assert (bad.name, bad.pictures, bad.own.value, bad.rest.value) == ("bad", 20, 0.4, 1.0)
    exact = stats.binomtest(8, 20).proportion_ci(0.975, "exact")
    assert [bad.own.low, bad.own.high] == pytest.approx([exact.low, exact.high])
    alone = mean_interval(correct[40:], units[40:])
    assert bad.own.low is not None
    assert alone.low is not None
    assert bad.own.low < alone.low
    assert (bad.is_worse, good.is_worse) == (True, False)


def test_units_widen_the_interval_and_it_is_never_empty() -> None:
    rng = np.random.default_rng(0)
    units = np.arange(100) // 10
    by_unit = (rng.random(10) < 0.7).astype(float)[units]
    alone, together = (simultaneous_interval(by_unit, of, 0.01) for of in (np.arange(100), units))
    assert alone.low is not None
    assert together.low is not None
    assert together.low < alone.low - 0.1
    for values in (np.ones(6), np.zeros(6)):
        for of in (np.arange(6), np.zeros(6, int)):
            estimate = simultaneous_interval(values, of, 0.01)
            assert (estimate.low, estimate.high) != (estimate.value, estimate.value)


def test_a_property_that_divides_nothing_has_no_figures() -> None:
    assert slice_figures([slice_by_value("source", ["a"] * 9)], np.ones(9), np.arange(9)) == []


def test_pictures_of_one_unit_show_little_and_a_group_is_asked_about_itself() -> None:
    correct, groups = np.array([1.0] * 90 + [0.0] * 10), np.arange(100) // 10
    by_source = slice_by_value("source", ["old"] * 90 + ["new"] * 10)
    new, _ = slice_figures([by_source], correct, groups)
    assert not new.is_worse, "all new pictures are of one group: its failure may be the group's"
    by_group = slice_by_value("group", [f"module {number}" for number in groups], pictures_alone=True)
    first, *others = slice_figures([by_group], correct, groups)
    assert (first.name, first.is_worse) == ("module 9", True)
    assert not any(figure.is_worse for figure in others)


@pytest.mark.parametrize("grouped", [False, True])
def test_slices_that_are_alike_are_seldom_called_worse(grouped: bool) -> None:
    """12 slices of three properties; in at most 5 % of the data sets may any of them be called worse."""
    rng, runs = np.random.default_rng(0), 300
    units = np.arange(240) // 4 if grouped else np.arange(240)
    alarms = 0
    for _ in range(runs):
        right = rng.beta(8, 2, 240)[units] if grouped else np.full(240, 0.85)
        correct = (rng.random(240) < right).astype(float)
        slicings = [slice_by_value(key, rng.integers(0, 4, 240)[units].astype(str).tolist()) for key in "abc"]
        alarms += any(figure.is_worse for figure in slice_figures(slicings, correct, units))
    assert alarms / runs <= 0.05
