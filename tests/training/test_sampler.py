"""Samplers: every row once, or as many rows of each label; the same rows for the same key."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.training.sampler import balanced_rows, shuffled_rows, steps_per_epoch


@given(st.integers(1, 200), st.integers(1, 64), st.integers(0, 5), st.integers(1, 5))
@settings(max_examples=60)
def test_an_epoch_has_every_row_once_in_batches_of_almost_equal_size(
    count: int, batch_size: int, seed: int, epoch: int
) -> None:
    batches = shuffled_rows(count, batch_size, seed, epoch)
    assert sorted(torch.cat(batches).tolist()) == list(range(count))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) - min(sizes) <= 1
    assert len(batches) == steps_per_epoch(count, batch_size)
    if count >= 2 and batch_size >= 2:
        assert min(sizes) >= 2, "batch norm fails on a batch of one row"
    assert all(torch.equal(a, b) for a, b in zip(batches, shuffled_rows(count, batch_size, seed, epoch), strict=True))


def test_every_epoch_and_seed_has_its_own_order() -> None:
    orders = {
        tuple(torch.cat(shuffled_rows(50, 8, seed, epoch)).tolist()) for seed in range(6) for epoch in range(1, 31)
    }
    assert len(orders) == 180


@given(st.lists(st.integers(0, 4), min_size=4, max_size=60), st.integers(1, 20), st.integers(0, 9))
def test_balanced_has_as_many_rows_of_each_label(labels: list[int], batch_size: int, epoch: int) -> None:
    numbers = torch.tensor(labels)
    batches = balanced_rows(numbers, batch_size, 7, epoch)
    assert [len(batch) for batch in batches] == [
        len(batch) for batch in shuffled_rows(len(labels), batch_size, 7, epoch)
    ]
    rows = torch.cat(batches)
    sampled = torch.bincount(numbers[rows], minlength=5)[sorted(set(labels))]
    assert sampled.max() - sampled.min() <= 1
    for label in set(labels):
        own = torch.bincount(rows, minlength=len(labels))[numbers == label]
        assert own.max() - own.min() <= 1, "no row is favoured within its label"


def test_the_same_key_the_same_rows() -> None:
    labels = torch.arange(40) % 7 // 4
    first, again, other = (torch.cat(balanced_rows(labels, 8, 3, epoch)).tolist() for epoch in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("count", [9, 40])
def test_a_rare_label_has_as_many_rows_as_a_common_one(count: int) -> None:
    labels = torch.tensor([0] * count + [1])
    sampled = labels[torch.cat(balanced_rows(labels, 4, 0, 1))]
    assert abs(int((sampled == 1).sum()) - int((sampled == 0).sum())) <= 1
