"""Pairs that stand out of a set: compared with their definition, and on sets with planted ones."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.base.arrays import Floats32
from headstart.images.oriented_hash import HashMatch
from headstart.split import near_duplicates
from headstart.split.near_duplicates import (
    LARGEST_LIMIT,
    LEAST_LIMIT,
    NEIGHBOUR,
    SURE_COSINE,
    NearDuplicates,
    find_near_duplicates,
    fit_whitening,
)

WIDTHS = (60, 100)  # so many that random rows are far from each other
Key = tuple[int, int]


def random_rows(seed: int, count: int = 40) -> Floats32:
    return np.random.default_rng(seed).normal(size=(count, sum(WIDTHS))).astype(np.float32)


def forbidden(_: Sequence[HashMatch]) -> Floats32:
    pytest.fail("no match is turned")


def find(rows: Floats32, matches: Sequence[HashMatch] = (), apart: int = 1000) -> NearDuplicates:
    return find_near_duplicates(rows, WIDTHS, matches, forbidden, apart)


def keys(found: NearDuplicates) -> set[Key]:
    return {(pair.first, pair.second) for pair in found.pairs}


def planted(seed: int, count: int, noise: float, pairs: int) -> Floats32:
    """Random rows of which the last `pairs` are the first ones again, a little changed."""
    rows = random_rows(seed, count)
    change = np.random.default_rng(seed + 1).normal(size=(pairs, rows.shape[1])) * noise
    return np.concatenate([rows, rows[:pairs] + change]).astype(np.float32)


def distances_by_definition(rows: Floats32) -> dict[Key, float]:
    """The distance of all pairs of which one is among the other's nearest, as parts of the smaller scale."""
    unit = fit_whitening(rows, WIDTHS).apply(rows).astype(np.float64)
    far = 1 - unit @ unit.T
    np.fill_diagonal(far, np.inf)
    count = len(rows)
    neighbour = min(NEIGHBOUR, max(2, (count - 1) // 2), count - 1)
    scale = np.sort(far, axis=1)[:, neighbour - 1]
    return {
        (i, j): far[i, j] / min(scale[i], scale[j])
        for i in range(count)
        for j in range(i + 1, count)
        if far[i, j] <= max(scale[i], scale[j])
    }


@given(st.integers(0, 10**6), st.integers(3, 60), st.integers(0, 3))
@settings(max_examples=40)
def test_pairs_are_those_of_the_definition(seed: int, count: int, pairs: int) -> None:
    rows = planted(seed, count, 0.2, pairs)
    found, expected = find(rows), distances_by_definition(rows)
    best = np.ones(len(rows))
    for key, distance in expected.items():
        best[[*key]] = np.minimum(best[[*key]], distance)
    sigma = 1.4826 * np.median(np.abs(best - np.median(best)))
    assert found.limit == pytest.approx(np.clip(np.median(best) - 4 * sigma, 0.5, 0.82), abs=1e-4)
    got = {(pair.first, pair.second): pair.distance for pair in (*found.pairs, *found.apart)}
    assert got == pytest.approx(expected, abs=1e-4)
    assert all(pair.distance <= found.limit for pair in found.pairs)
    assert all(pair.distance > found.limit for pair in found.apart)


@given(st.integers(0, 10**6), st.integers(2, 50), st.integers(0, 3), st.integers(0, 30))
@settings(max_examples=40)
def test_pairs_are_once_each_in_order_and_apart_are_at_most_so_many(
    seed: int, count: int, pairs: int, apart: int
) -> None:
    found = find(planted(seed, count, 0.3, min(pairs, count)), apart=apart)
    both = [*found.pairs, *found.apart]
    assert all(0 <= pair.first < pair.second for pair in both)
    assert len({(pair.first, pair.second) for pair in both}) == len(both)
    assert [pair.distance for pair in both] == sorted(pair.distance for pair in both)
    assert len(found.apart) <= apart
    assert LEAST_LIMIT <= found.limit <= LARGEST_LIMIT


@given(st.permutations(range(45)))
@settings(max_examples=20)
def test_another_order_gives_the_same_pairs(order: list[int]) -> None:
    rows = planted(3, 40, 0.15, 5)
    found, renumbered = find(rows), find(rows[order])
    assert renumbered.limit == pytest.approx(found.limit, abs=1e-5)
    back = {frozenset((order[pair.first], order[pair.second])): pair.distance for pair in renumbered.pairs}
    assert back == pytest.approx(
        {frozenset((pair.first, pair.second)): pair.distance for pair in found.pairs}, abs=1e-4
    )
    assert keys(found) == {(n, 40 + n) for n in range(5)}


@given(st.integers(0, 10**6), st.floats(0.1, 100), st.floats(0.1, 100), st.floats(-50, 50))
@settings(max_examples=30)
def test_scale_and_centre_of_a_part_do_not_count(seed: int, first: float, second: float, centre: float) -> None:
    rows = random_rows(seed).astype(np.float64)
    changed = np.concatenate([rows[:, :60] * first + centre, rows[:, 60:] * second], axis=1)
    unit = fit_whitening(rows.astype(np.float32), WIDTHS).apply(rows.astype(np.float32))
    other = fit_whitening(changed.astype(np.float32), WIDTHS).apply(changed.astype(np.float32))
    assert np.allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-5)
    assert np.allclose(unit @ unit.T, other @ other.T, atol=2e-3)


def test_what_all_pictures_have_in_common_does_not_count() -> None:
    """Plain cosines of these rows are all above 0.99; a pair among them is found all the same, and nothing else."""
    common = 100 * np.random.default_rng(9).normal(size=sum(WIDTHS))
    rows = (planted(5, 60, 0.1, 2) + common).astype(np.float32)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert (unit @ unit.T).min() > 0.99
    assert keys(find(rows)) == {(0, 60), (1, 61)}
    assert keys(find(rows[:60])) == set()


def test_where_every_picture_has_a_copy_the_limit_is_the_least() -> None:
    found = find(planted(7, 30, 0.1, 30))
    assert found.limit == LEAST_LIMIT
    assert keys(found) == {(n, 30 + n) for n in range(30)}


def test_copies_that_hide_each_other_are_found_by_their_hashes() -> None:
    """13 copies of one picture: each one's tenth neighbour is another copy, so no pair of them stands out."""
    rows = random_rows(11, 60)
    change = np.random.default_rng(12).normal(size=(12, rows.shape[1])) * 0.05
    rows = np.concatenate([rows, rows[0] + change]).astype(np.float32)
    copies = [0, *range(60, 72)]
    links = [HashMatch(first, second, 3, 0) for first, second in pairwise(copies)]
    without, found = find(rows), find(rows, [*links, HashMatch(1, 2, 3, 0)])
    assert not {(match.first, match.second) for match in links} <= keys(without)
    assert {(match.first, match.second) for match in links} <= keys(found)
    assert (1, 2) not in keys(found), "near hashes alone are no near-duplicates"
    assert all(pair.cosine >= SURE_COSINE for pair in found.pairs if pair.distance > found.limit)


def test_turned_pictures_are_compared_as_they_are_turned() -> None:
    rows = random_rows(21, 40)
    matches = [HashMatch(0, 1, 5, 3), HashMatch(2, 3, 5, 0), HashMatch(4, 5, 5, 1), HashMatch(6, 7, 5, 6)]
    asked: list[Sequence[HashMatch]] = []

    def turned(some: Sequence[HashMatch]) -> Floats32:
        asked.append(some)
        return rows[[1, 30, 7]]  # 0 turned is 1, 4 turned is nothing like 5, 6 turned is 7

    found = find_near_duplicates(rows, WIDTHS, matches, turned, 1000)
    assert asked == [[matches[0], matches[2], matches[3]]]
    assert keys(found) == {(0, 1), (6, 7)}
    for pair, orientation in zip(sorted(found.pairs, key=lambda one: one.first), (3, 6), strict=True):
        assert pair.cosine == pytest.approx(1, abs=1e-6)
        assert pair.distance == pytest.approx(0, abs=1e-5)
        assert pair.orientation == orientation
    assert {(2, 3), (4, 5)} <= {(pair.first, pair.second) for pair in found.apart}


def test_a_match_that_is_nearer_as_it_is_stays_so() -> None:
    rows = planted(23, 40, 0.05, 1)
    found = find_near_duplicates(rows, WIDTHS, [HashMatch(0, 40, 9, 4)], lambda _: rows[[7]], 10)
    (pair,) = found.pairs
    assert (pair.first, pair.second, pair.orientation) == (0, 40, 0)
    assert pair.cosine > 0.9


@pytest.mark.parametrize("count", [2, 3])
def test_the_smallest_sets(count: int) -> None:
    assert keys(find(random_rows(1, count))) == set()


def test_rows_that_are_all_the_same_are_no_error() -> None:
    found = find(np.ones((12, sum(WIDTHS)), np.float32))
    assert np.isfinite([pair.distance for pair in (*found.pairs, *found.apart)]).all()


def test_pairs_are_found_across_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = planted(31, 50, 0.2, 6)
    whole = find(rows)
    monkeypatch.setattr(near_duplicates, "BLOCK_ROWS", 7)
    blocks = find(rows)
    assert keys(blocks) == keys(whole) == {(n, 50 + n) for n in range(6)}
    assert blocks.limit == pytest.approx(whole.limit, abs=1e-5)
