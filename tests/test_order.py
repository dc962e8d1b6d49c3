"""Which pictures come when: all of them once, or every label as often, and always the same."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headstart.order import balanced, order, steps_of


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 9))
def test_an_epoch_shows_every_row_once(count: int, batch_size: int, epoch: int) -> None:
    batches = order(count, batch_size, 7, epoch)
    assert sorted(torch.cat(batches).tolist()) == list(range(count))
    assert len(batches) == steps_of(count, batch_size)


@given(st.lists(st.integers(0, 4), min_size=4, max_size=60), st.integers(1, 20), st.integers(0, 9))
def test_balanced_shows_every_label_as_often(labels: list[int], batch_size: int, epoch: int) -> None:
    numbers = torch.tensor(labels)
    batches = balanced(numbers, batch_size, 7, epoch)
    assert [len(batch) for batch in batches] == [len(batch) for batch in order(len(labels), batch_size, 7, epoch)]
    rows = torch.cat(batches)
    shown = torch.bincount(numbers[rows], minlength=5)[sorted(set(labels))]
    assert shown.max() - shown.min() <= 1
    for label in set(labels):
        own = torch.bincount(rows, minlength=len(labels))[numbers == label]
        assert own.max() - own.min() <= 1, "no picture is favoured within its label"


def test_the_same_key_the_same_rows() -> None:
    labels = torch.arange(40) % 7 // 4
    first, again, other = (torch.cat(balanced(labels, 8, 3, epoch)).tolist() for epoch in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("count", [9, 40])
def test_a_rare_label_is_seen_as_much_as_a_common_one(count: int) -> None:
    labels = torch.tensor([0] * count + [1])
    shown = labels[torch.cat(balanced(labels, 4, 0, 1))]
    assert abs(int((shown == 1).sum()) - int((shown == 0).sum())) <= 1
