"""Hashes of a picture's eight orientations are those of the turned pictures, and pairs that are near are found."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.base.arrays import Bools, Floats
from headstart.images.oriented_hash import (
    ORIENTATIONS,
    find_matches,
    find_pairs,
    hash_coefficients,
    hash_distance,
    orient,
    orient_coefficients,
)
from pictures import picture


def noise(seed: int) -> Image.Image:
    """32 x 32 grey levels, which hashing does not resize."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32)).astype(np.uint8))


def hash_of(coefficients: Floats, side: int = 8) -> Bools:
    """PHash by its definition."""
    lowest = coefficients[:side, :side]
    bits: Bools = (lowest > np.median(lowest)).ravel()
    return bits


def family(seed: int, count: int = 14) -> list[Floats]:
    """Coefficients of pictures that are more or less alike, some turned."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(3, 16, 16))
    rows = base[rng.integers(0, 3, count)] + rng.normal(size=(count, 16, 16)) * rng.uniform(0, 0.4, (count, 1, 1))
    return [orient_coefficients(row[None], int(rng.integers(0, 8)))[0] for row in rows]


@pytest.mark.parametrize("orientation", range(ORIENTATIONS))
def test_a_turned_picture_is_found_in_its_orientation(orientation: int) -> None:
    original = noise(0)
    turned = Image.fromarray(orient(np.asarray(original), orientation))
    expected = orient_coefficients(hash_coefficients(original)[None], orientation)[0]
    assert np.allclose(hash_coefficients(turned), expected)
    (match,) = find_matches([hash_coefficients(one) for one in (original, noise(1), turned)], 4)
    assert (match.first, match.second, match.orientation) == (0, 2, orientation)
    assert hash_distance(hash_coefficients(original), hash_coefficients(turned)) == match.bits


def test_the_eight_orientations_are_different_and_colours_turn_too() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 5, 3)).astype(np.uint8)
    turned = [orient(pixels, orientation) for orientation in range(ORIENTATIONS)]
    assert len({one.tobytes() for one in turned}) == ORIENTATIONS
    assert np.array_equal(turned[0], pixels)
    assert np.array_equal(turned[1], np.fliplr(pixels))
    assert np.array_equal(turned[2], np.flipud(pixels))
    assert {one.tobytes() for one in turned} >= {np.ascontiguousarray(np.rot90(pixels, k)).tobytes() for k in range(4)}


def test_coefficients_are_those_of_the_cosine_transform() -> None:
    pixels = np.asarray(noise(3), np.float64)
    cosines = np.cos(np.pi * np.outer(np.arange(16), 2 * np.arange(32) + 1) / 64)
    assert np.allclose(hash_coefficients(noise(3)), 4 * cosines @ pixels @ cosines.T)


def test_the_hash_is_that_of_imagehash() -> None:
    """`imagehash.phash` (4.3) of these pictures; it was what found near-duplicates before."""
    for seed, known in ((0, "949b3e1a2d9f3702"), (1, "92c1f3242da8f6dc")):
        bits = hash_of(hash_coefficients(noise(seed)))
        assert f"{int(''.join(map(str, bits.astype(int))), 2):016x}" == known


def test_a_smaller_and_a_brighter_picture_are_near_another_one_is_not() -> None:
    small = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8)).astype(np.uint8)) for seed in (0, 1)]
    one, other = (each.resize((96, 96), Image.Resampling.BICUBIC) for each in small)
    hashes = [hash_coefficients(each) for each in (one, one.resize((64, 64)), one.point(lambda v: v * 0.9), other)]
    assert find_pairs(hashes, 6) == [(0, 1), (0, 2), (1, 2)]
    assert [(match.first, match.second) for match in find_matches(hashes, 6)] == [(0, 1), (0, 2), (1, 2)]
    assert find_pairs([hash_coefficients(picture())] * 2, 0) == [(0, 1)]


def test_nothing_is_found_with_negative_bits_or_among_none() -> None:
    same = [hash_coefficients(noise(0))] * 2
    for coefficients, bits in ((same, -1), ([], 4), (same[:1], 4)):
        assert not find_matches(coefficients, bits)
        assert not find_pairs(coefficients, bits)


@given(st.integers(0, 10**6), st.integers(0, 24))
@settings(max_examples=40)
def test_pairs_are_all_whose_hashes_are_near(seed: int, bits: int) -> None:
    rows = family(seed)
    expected = [
        (i, j)
        for i in range(len(rows))
        for j in range(i + 1, len(rows))
        if (hash_of(rows[i]) != hash_of(rows[j])).sum() <= bits
    ]
    assert sorted(find_pairs(rows, bits)) == expected


@given(st.integers(0, 10**6), st.integers(0, 24))
@settings(max_examples=40)
def test_matches_are_all_that_are_near_by_both_hashes_in_some_orientation(seed: int, bits: int) -> None:
    rows = family(seed)
    expected = []
    for i in range(len(rows)):
        for j in range(i + 1, len(rows)):
            near = []
            for orientation in range(ORIENTATIONS):
                turned = orient_coefficients(rows[i][None], orientation)[0]
                coarse = int((hash_of(turned) != hash_of(rows[j])).sum())
                fine = int((hash_of(turned, 16) != hash_of(rows[j], 16)).sum())
                if coarse <= bits and fine <= 4 * bits:
                    near.append((fine, orientation, coarse))
            if near:
                expected.append((i, j, *min(near)[1:]))
    assert [(m.first, m.second, m.orientation, m.bits) for m in find_matches(rows, bits)] == expected


def test_pairs_are_found_across_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [np.random.default_rng(n % 7).random((16, 16)) for n in range(40)]
    whole, matches = find_pairs(rows, 3), find_matches(rows, 3)
    monkeypatch.setattr("headstart.images.oriented_hash.BLOCK_ROWS", 9)
    assert sorted(find_pairs(rows, 3)) == sorted(whole)
    assert find_matches(rows, 3) == matches
    assert len(whole) == len(matches) == sum(i % 7 == j % 7 for i in range(40) for j in range(i))
