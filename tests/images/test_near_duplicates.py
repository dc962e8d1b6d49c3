"""Perceptual hashes of pictures that look the same, and groups of what is linked."""

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.images.near_duplicates import find_near_duplicates, group_linked, link_equal, perceptual_hash
from pictures import picture


def test_a_smaller_and_a_brighter_picture_are_near_another_one_is_not() -> None:
    noise = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8)).astype(np.uint8)) for seed in (0, 1)]
    one, other = (small.resize((96, 96), Image.Resampling.BICUBIC) for small in noise)
    hashes = [perceptual_hash(each) for each in (one, one.resize((64, 64)), one.point(lambda v: v * 0.9), other)]
    assert hashes[0].shape == (8, 8)
    assert find_near_duplicates(hashes, 6) == [(0, 1), (0, 2), (1, 2)]
    assert find_near_duplicates([perceptual_hash(picture())] * 2, 0) == [(0, 1)]
    assert find_near_duplicates(hashes, -1) == []
    assert find_near_duplicates([], 4) == []


def test_equal_keys_are_linked_and_none_is_equal_to_nothing() -> None:
    links = link_equal(["a", None, ("x", 1), "a", None, ("x", 1), "a"])
    assert sorted(map(sorted, group_linked(7, links))) == [[0, 3, 6], [1], [2, 5], [4]]


def test_links_connect_by_way_of_others() -> None:
    assert sorted(map(sorted, group_linked(6, [(0, 1), (4, 1), (2, 3)]))) == [[0, 1, 4], [2, 3], [5]]
    assert group_linked(2, []) == [[0], [1]]


@given(st.lists(st.integers(0, 2**64 - 1), max_size=30), st.integers(-1, 64))
@settings(max_examples=60)
def test_pairs_are_those_that_imagehash_finds_near(numbers: list[int], bits: int) -> None:
    near = [number ^ (1 << number % 64) for number in numbers[:5]]  # one bit away
    hashes = [np.array([n >> b & 1 for b in range(64)], bool).reshape(8, 8) for n in [*numbers, *near]]
    known = [imagehash.ImageHash(h) for h in hashes]
    expected = [
        (i, j) for i in range(len(known)) for j in range(i + 1, len(known)) if bits >= 0 and known[i] - known[j] <= bits
    ]
    assert sorted(find_near_duplicates(hashes, bits)) == expected


def test_pairs_are_found_across_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = [np.random.default_rng(n % 7).random((8, 8)) > 0.5 for n in range(40)]
    whole = find_near_duplicates(hashes, 3)
    monkeypatch.setattr("headstart.images.near_duplicates.BLOCK_ROWS", 9)
    assert find_near_duplicates(hashes, 3) == whole
    assert len(whole) == sum(i % 7 == j % 7 for i in range(40) for j in range(i))
