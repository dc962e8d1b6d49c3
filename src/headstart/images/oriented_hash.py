"""Perceptual hashes (pHash): pairs of pictures that are near as they are, or in one of eight orientations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.base.arrays import Bools, Floats

ORIENTATIONS = 8  # bit 1: columns reversed; bit 2: rows reversed; bit 4: then rows and columns swapped
SIDE = 16  # of the coefficients kept: 64 of the lowest are pHash, all 256 confirm it
BLOCK_ROWS = 512  # hashes compared with all others at once; bounds the memory


@dataclass(frozen=True)
class HashMatch:
    """Two pictures whose hashes are near.

    Attributes:
        first: number of a picture.
        second: of another one, larger.
        bits: of the 64 that differ, with `first` in `orientation`.
        orientation: what `orient` does to the first picture.
    """

    first: int
    second: int
    bits: int
    orientation: int


def hash_coefficients(picture: Image.Image) -> Floats:
    """The lowest 16 x 16 DCT coefficients of the picture as 32 x 32 grey levels, as pHash computes them."""
    from scipy.fftpack import dct

    picture.draft("L", (256, 256))
    small = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    coefficients: Floats = dct(dct(small, axis=0), axis=1)[:SIDE, :SIDE]
    return coefficients


def orient(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """A picture (s, s, ...) in one of its eight orientations; 0: as it is, 1: mirrored."""
    turned = pixels[:, ::-1] if orientation & 1 else pixels
    turned = turned[::-1] if orientation & 2 else turned
    return np.ascontiguousarray(turned.swapaxes(0, 1) if orientation & 4 else turned)


def orient_coefficients(coefficients: Floats, orientation: int) -> Floats:
    """What `hash_coefficients` gives for oriented pictures (n, 16, 16): odd cosines change their sign."""
    signs = (-1.0) ** np.arange(coefficients.shape[-1])
    turned = coefficients * signs if orientation & 1 else coefficients
    turned = turned * signs[:, None] if orientation & 2 else turned
    return turned.swapaxes(1, 2) if orientation & 4 else turned


def find_pairs(coefficients: Sequence[Floats], bits: int) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, whose hashes differ in at most `bits` of 64 as they are; none when `bits` is negative."""
    if not coefficients or bits < 0:
        return []
    hashes = _bits(np.stack(coefficients), 8)
    return [(first, second) for first, second, _ in _near(hashes, hashes, bits)]


def find_matches(coefficients: Sequence[Floats], bits: int) -> list[HashMatch]:
    """Pairs whose hashes differ in at most `bits` of 64, and in at most the same part of 256, in some orientation.

    Of several orientations it is the one in which the 256 differ least. The finer hash tells turned copies from
    pictures that have no more in common than where it is dark: those differ in a third of its bits.
    """
    if len(coefficients) < 2 or bits < 0:
        return []
    stacked = np.stack(coefficients)
    plain = _bits(stacked, 8), _bits(stacked, SIDE)
    found: dict[tuple[int, int], tuple[int, int, int]] = {}
    for orientation in range(ORIENTATIONS):
        turned = orient_coefficients(stacked, orientation)
        for first, second, coarse in _near(_bits(turned, 8), plain[0], bits):
            fine = int(np.count_nonzero(_bits(turned[first][None], SIDE)[0] != plain[1][second]))
            if fine <= 4 * bits:
                best = found.get((first, second), (SIDE**2 + 1, 0, 0))
                found[first, second] = min(best, (fine, orientation, coarse))
    return [
        HashMatch(first, second, coarse, orientation)
        for (first, second), (_, orientation, coarse) in sorted(found.items())
    ]


def hash_distance(one: Floats, other: Floats) -> int:
    """The bits of 64 in which two pictures' hashes differ, in the orientation in which they differ least."""
    target = _bits(other[None], 8)
    return min(
        int(np.count_nonzero(_bits(orient_coefficients(one[None], orientation), 8) != target))
        for orientation in range(ORIENTATIONS)
    )


def _bits(coefficients: Floats, side: int) -> Bools:
    """Which of the lowest side x side coefficients exceed their median, (n, side * side)."""
    lowest = coefficients[:, :side, :side].reshape(len(coefficients), -1)
    above: Bools = lowest > np.median(lowest, axis=1, keepdims=True)
    return above


def _near(turned: Bools, plain: Bools, bits: int) -> Iterator[tuple[int, int, int]]:
    """First, second and distance of pairs, first < second, that differ in at most `bits` bits."""
    ones, target = turned.astype(np.float32), plain.astype(np.float32)
    for start in range(0, len(ones), BLOCK_ROWS):
        block = ones[start : start + BLOCK_ROWS]
        # Hamming distance as matrix products: ones of one hash where the other has zeros, both ways.
        distance = block @ (1 - target[start:]).T + (1 - block) @ target[start:].T
        rows, columns = np.nonzero(np.triu(distance <= bits + 0.5, 1))
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            yield start + row, start + column, round(float(distance[row, column]))
