"""Prefetching gives what `map` gives: in order, no further ahead than asked, errors included."""

import threading
import time

import pytest

from headstart.base.parallel import prefetch


def test_results_come_in_order_whatever_each_takes() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0)
        return number * number

    for count in (1, 2, 50):
        assert list(prefetch(slow_first, range(7), count)) == [number * number for number in range(7)]
    assert list(prefetch(slow_first, [])) == []


def test_it_works_while_a_result_is_used_but_not_far_ahead() -> None:
    done: list[int] = []
    third = threading.Event()

    def work(number: int) -> int:
        done.append(number)
        if number == 2:
            third.set()
        return number

    results = prefetch(work, range(9), 2)
    assert done == [], "not before the first is asked for"
    assert next(results) == 0
    assert third.wait(5), "while the first is used, the third is made"
    results.close()  # type: ignore[attr-defined]
    assert done == [0, 1, 2]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_an_error_is_raised_where_its_result_is_consumed() -> None:
    results = prefetch(lambda number: 1 // number, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
