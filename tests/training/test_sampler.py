"""Samplers: every row once, or as many rows of each label; the same rows for the same key."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.base import distributed
from headstart.base.errors import UserError
from headstart.training.sampler import BatchSampler, balanced_rows, batch_sizes, shuffled_rows
from training.toy import make_params


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [
        (47, 32, [32, 15]),
        (64, 32, [32, 32]),
        (34, 32, [32, 2]),
        (33, 32, [17, 16]),
        (65, 32, [32, 17, 16]),
        (33, 500, [33]),
        (4, 3, [2, 2]),
        (3, 1, [1, 1, 1]),
        (1, 8, [1]),
    ],
)
@pytest.mark.parametrize("single_row", [False, True])
def test_sizes_of_batches(count: int, batch_size: int, sizes: list[int], single_row: bool) -> None:
    assert batch_sizes(count, batch_size, single_row=single_row or batch_size == 1) == sizes


def test_batches_of_two_and_an_odd_number_of_rows() -> None:
    assert batch_sizes(5, 2) == [2, 2, 1]
    assert batch_sizes(5, 2, single_row=False) == [2, 2]
    left_out = {tuple(set(range(5)) - set(torch.cat(shuffled_rows(5, [2, 2], 0, e)).tolist())) for e in range(1, 40)}
    assert left_out == {(row,) for row in range(5)}, "in each epoch another"


@given(st.integers(1, 200), st.integers(1, 64), st.integers(0, 5), st.integers(1, 5))
@settings(max_examples=60)
def test_an_epoch_has_every_row_once_in_batches_of_at_most_batch_size(
    count: int, batch_size: int, seed: int, epoch: int
) -> None:
    sizes = batch_sizes(count, batch_size)
    batches = shuffled_rows(count, sizes, seed, epoch)
    assert sorted(torch.cat(batches).tolist()) == list(range(count))
    assert [len(batch) for batch in batches] == sizes
    assert max(sizes) <= batch_size
    assert len(sizes) == -(-count // batch_size)
    if count >= 2 and batch_size >= 3:
        assert min(sizes) >= 2, "batch norm fails on a batch of one row"
    assert all(torch.equal(a, b) for a, b in zip(batches, shuffled_rows(count, sizes, seed, epoch), strict=True))


@given(st.integers(2, 200), st.integers(2, 64))
def test_no_batch_of_one_row_where_a_batch_norm_trains(count: int, batch_size: int) -> None:
    sizes = batch_sizes(count, batch_size, single_row=False)
    assert 2 <= min(sizes) <= max(sizes) <= batch_size
    assert count - sum(sizes) == (1 if batch_size == 2 and count % 2 else 0)


@pytest.mark.parametrize("world_size", [2, 5, 16])
def test_the_last_batch_has_rows_for_every_process(world_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_process_group", distributed._ProcessGroup(world_size))
    for count in range(32, 97):
        sizes = batch_sizes(count, 32)
        assert sum(sizes) == count
        assert min(sizes) >= world_size
        assert max(sizes) <= 32


def test_one_picture_cannot_train_a_batch_norm() -> None:
    assert BatchSampler(1, None, make_params(), 0).steps == 1
    with pytest.raises(UserError, match="one training picture, and a batch norm that trains needs two; add pictures"):
        BatchSampler(1, None, make_params(), 0, trains_batch_norm=True)


@pytest.mark.parametrize("sampling", ["shuffled", "balanced"])
def test_the_sampler_of_a_network_with_batch_norm(sampling: str) -> None:
    labels = torch.arange(5) % 2
    options: dict[str, Any] = {"batch_size": 2, "sampling": sampling}
    for trains_batch_norm, sizes in ((False, [2, 2, 1]), (True, [2, 2])):
        sampler = BatchSampler(5, labels, make_params(**options), 0, trains_batch_norm)
        assert sampler.steps == len(sizes)
        assert [len(rows) for rows in sampler.rows(1)] == [len(rows) for rows in sampler.rank_rows(1, 0, "x")] == sizes


def test_every_epoch_and_seed_has_its_own_order() -> None:
    orders = {
        tuple(torch.cat(shuffled_rows(50, batch_sizes(50, 8), seed, epoch)).tolist())
        for seed in range(6)
        for epoch in range(1, 31)
    }
    assert len(orders) == 180


@given(st.lists(st.integers(0, 4), min_size=4, max_size=60), st.integers(1, 20), st.integers(0, 9))
def test_balanced_has_as_many_rows_of_each_label(labels: list[int], batch_size: int, epoch: int) -> None:
    numbers = torch.tensor(labels)
    sizes = batch_sizes(len(labels), batch_size)
    batches = balanced_rows(numbers, sizes, 7, epoch)
    assert [len(batch) for batch in batches] == sizes
    rows = torch.cat(batches)
    sampled = torch.bincount(numbers[rows], minlength=5)[sorted(set(labels))]
    assert sampled.max() - sampled.min() <= 1
    for label in set(labels):
        own = torch.bincount(rows, minlength=len(labels))[numbers == label]
        assert own.max() - own.min() <= 1, "no row is favoured within its label"


def test_the_same_key_the_same_rows() -> None:
    labels = torch.arange(40) % 7 // 4
    first, again, other = (torch.cat(balanced_rows(labels, [8] * 5, 3, epoch)).tolist() for epoch in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("count", [9, 40])
def test_a_rare_label_has_as_many_rows_as_a_common_one(count: int) -> None:
    labels = torch.tensor([0] * count + [1])
    sampled = labels[torch.cat(balanced_rows(labels, batch_sizes(count + 1, 4), 0, 1))]
    assert abs(int((sampled == 1).sum()) - int((sampled == 0).sum())) <= 1
