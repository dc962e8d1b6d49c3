"""Pictures that look the same: perceptual hashes that differ in a few bits."""

from collections.abc import Sequence

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Hash = npt.NDArray[np.bool_]
ROWS = 512  # hashes compared with all others at once; bounds the memory


def fingerprint(picture: Pillow.Image) -> Hash:
    """The 64 bits of pHash, (8, 8)."""
    picture.draft("L", (256, 256))
    found: Hash = imagehash.phash(picture.convert("L")).hash
    return found


def find_twins(hashes: Sequence[Hash], bits: int) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, whose hashes differ in at most `bits` bits; none when bits is negative."""
    if not hashes or bits < 0:
        return []
    table = np.stack([np.asarray(h).reshape(-1) for h in hashes]).astype(np.float32)
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(table), ROWS):
        part = table[start : start + ROWS]
        # Hamming distance as matrix products: ones of one where the other has zeros, both ways.
        distance = part @ (1 - table).T + (1 - part) @ table.T
        rows, columns = np.nonzero(distance <= bits + 0.5)
        pairs += [
            (int(row) + start, int(column)) for row, column in zip(rows, columns, strict=True) if row + start < column
        ]
    return pairs


def joined(count: int, links: Sequence[tuple[int, int]]) -> list[list[int]]:
    """The numbers below `count` in lists of those that links join, directly or by way of others."""
    rows, columns = (list(side) for side in zip(*links, strict=True)) if links else ([], [])
    graph = coo_array((np.ones(len(links)), (rows, columns)), shape=(count, count))
    _, member_of = connected_components(graph, directed=False)
    members: dict[int, list[int]] = {}
    for number, component in enumerate(member_of.tolist()):
        members.setdefault(component, []).append(number)
    return list(members.values())
