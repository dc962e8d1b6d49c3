"""Groups of pictures, or of anything, that links connect."""

from collections.abc import Hashable, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


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
