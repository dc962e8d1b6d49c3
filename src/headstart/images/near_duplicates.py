"""Near-duplicate pictures: perceptual hashes (pHash) within a small Hamming distance, and groups of linked pictures."""

from collections.abc import Hashable, Sequence

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

PerceptualHash = npt.NDArray[np.bool_]  # (8, 8)
BLOCK_ROWS = 512  # hashes compared with all others at once; bounds the memory


def perceptual_hash(picture: Image.Image) -> PerceptualHash:
    """The 64 bits of pHash: which of the lowest 8 x 8 DCT coefficients exceed their median; shape (8, 8)."""
    picture.draft("L", (256, 256))
    bits: PerceptualHash = imagehash.phash(picture.convert("L")).hash
    return bits


def find_near_duplicates(hashes: Sequence[PerceptualHash], bits: int) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, whose hashes differ in at most `bits` bits; none when `bits` is negative."""
    if not hashes or bits < 0:
        return []
    table = np.stack([np.asarray(one).reshape(-1) for one in hashes]).astype(np.float32)
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(table), BLOCK_ROWS):
        block = table[start : start + BLOCK_ROWS]
        # Hamming distance as matrix products: ones of one hash where the other has zeros, both ways.
        distance = block @ (1 - table).T + (1 - block) @ table.T
        rows, columns = np.nonzero(distance <= bits + 0.5)
        pairs += [
            (int(row) + start, int(column)) for row, column in zip(rows, columns, strict=True) if row + start < column
        ]
    return pairs


def link_equal(keys: Sequence[Hashable | None]) -> list[tuple[int, int]]:
    """Links (i, j) between all positions with an equal key, for `group_linked`; None is equal to nothing."""
    first: dict[Hashable, int] = {}
    return [(first.setdefault(key, index), index) for index, key in enumerate(keys) if key is not None]


def group_linked(count: int, links: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Connected components: the numbers 0 to `count` - 1 in lists, two in one list if links connect them."""
    rows, columns = (list(side) for side in zip(*links, strict=True)) if links else ([], [])
    graph = coo_array((np.ones(len(links)), (rows, columns)), shape=(count, count))
    _, component_of = connected_components(graph, directed=False)
    components: dict[int, list[int]] = {}
    for number, component in enumerate(component_of.tolist()):
        components.setdefault(component, []).append(number)
    return list(components.values())
