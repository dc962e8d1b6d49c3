"""Tables of the report, worked by hand."""

import numpy as np

from headstart.evaluation.report_tables import (
    counted,
    counts_table,
    format_area,
    format_cell,
    format_estimate,
    format_percent,
    format_points,
    format_with_interval,
    top_confusions_table,
)
from headstart.metrics.estimate import Estimate


def test_the_most_frequent_mistakes_come_first() -> None:
    confusion = np.array([[2, 1], [2, 0]])
    assert top_confusions_table(confusion, ("whole", "cracked"), "pictures").rows == (
        ("cracked", "whole", 2, "100.0\xa0%"),
        ("whole", "cracked", 1, "33.3\xa0%"),
    )
    assert confusion.tolist() == [[2, 1], [2, 0]], "the argument is not changed"


def test_counts_have_totals() -> None:
    table = counts_table({"train": {"b": 2, "a": 1}, "test": {"a": 3}})
    assert table.header == ("label", "train", "test")
    assert table.rows == (("a", 1, 3), ("b", 2, 0), ("all", 3, 3))


def test_numbers_as_text() -> None:
    assert [format_cell(value) for value in (3371008, 12, "1000", 0.5)] == ["3,371,008", "12", "1000", "0.5"]
    assert [counted(1, "box"), counted(2, "box"), counted(1200, "picture")] == ["1 box", "2 boxes", "1,200 pictures"]
    assert [format_area(area) for area in (0.9998, 1.0, 0.9994, 0.5)] == [">\xa00.999", "1.000", "0.999", "0.500"]
    assert format_points(Estimate(-0.0001, -0.02, 0.019)) == "+0.0 points (\N{MINUS SIGN}2.0 to +1.9)"
    assert format_estimate(Estimate(0.5, 0.4, 0.6), format_percent) == ("50.0\xa0%", "40.0\xa0% to 60.0\xa0%")
    assert format_estimate(Estimate(0.5), format_percent) == ("50.0\xa0%", "")
    assert format_estimate(Estimate(None, absent="no box"), format_percent) == ("–", "no box")
    assert format_estimate(Estimate(0.5, note="the same model"), format_percent) == ("50.0\xa0%", "the same model")
    few = Estimate(0.5, 0.4, 0.6, note="only 3 units")
    assert format_estimate(few, format_percent) == ("50.0\xa0%", "40.0\xa0% to 60.0\xa0%; only 3 units")
    assert format_with_interval(few, format_percent) == "50.0\xa0% (40.0\xa0% to 60.0\xa0%; only 3 units)"
    assert format_with_interval(Estimate(None, absent="no box"), format_percent) == "– (no box)"
