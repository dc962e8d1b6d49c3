"""Hashes of a picture's eight orientations are those of the turned pictures."""

import numpy as np
import pytest
from PIL import Image

from headstart.images.oriented_hash import (
    ORIENTATIONS,
    find_matches,
    hash_coefficients,
    hash_distance,
    orient,
    orient_coefficients,
)


def noise(seed: int) -> Image.Image:
    """32 x 32 grey levels, which hashing does not resize."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32)).astype(np.uint8))


@pytest.mark.parametrize("orientation", range(ORIENTATIONS))
def test_a_turned_picture_is_found_in_its_orientation(orientation: int) -> None:
    picture = noise(0)
    turned = Image.fromarray(orient(np.asarray(picture), orientation))
    expected = orient_coefficients(hash_coefficients(picture)[None], orientation)[0]
    assert np.allclose(hash_coefficients(turned), expected)
    (match,) = find_matches([hash_coefficients(one) for one in (picture, noise(1), turned)], 4)
    assert (match.first, match.second, match.orientation) == (0, 2, orientation)
    assert hash_distance(hash_coefficients(picture), hash_coefficients(turned)) == match.bits


def test_nothing_is_found_with_negative_bits() -> None:
    assert find_matches([hash_coefficients(noise(0))] * 2, -1) == []
