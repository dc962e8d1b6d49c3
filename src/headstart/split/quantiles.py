"""Groups in an order of hashes, cut where the cumulative shares are: one more picture moves the cuts by one at most."""

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate, groupby, product

from headstart.base.manifest import Split
from headstart.split.groups import SplitGroup

Parts = dict[Split, list[SplitGroup]]

# A group of more than this part of its stratum is placed by what is needed: no cut comes near the shares with it.
LARGE_PART = 1 / 8
# So much of the stratum may large groups put above the shares, beyond what they must: else the largest one would go to
# train whatever the seed.
LARGE_SLACK = 0.05


def divide(
    groups: Sequence[SplitGroup], shares: Mapping[Split, float], phase: float, required: Collection[Split], key: str
) -> Parts:
    """Divide the groups of one stratum.

    1. Large groups go where their hashes say, each split in proportion to its share, of the ways to deal them that
       exceed the shares as little as their sizes allow (`LARGE_SLACK`).
    2. Other groups of several pictures are cut size by size (8 to 15 pictures, 4 to 7, 2 or 3), each where it brings
       the groups up to that one nearest to the shares. Where a size has too few groups for every split, the first cut
       is where a hash of `key` says, so that the only group of a size is in test as often as test's share.
    3. Single pictures are cut so that the sum comes to the shares.

    The cuts of single pictures are `floor(f(n) + phase)` of n pictures, where f rises by 0 to 1 with each of them. So
    one more picture moves each cut by one place at most, and of three splits at most two other pictures change theirs.
    Steps 1 and 2 do not depend on how many single pictures there are, but for how many pictures a large group is.

    Args:
        groups: of one stratum; not pinned.
        shares: split -> its share, above 0; together 1.
        phase: 0 to 1; 0.5 rounds the cuts, and different ones keep the rounding of many strata from adding up.
        required: splits that get one group at least, if there are enough single pictures.
        key: the seed and the stratum.
    """
    total = _size(groups)
    parts: Parts = {name: [] for name in shares}
    by_size = sorted(groups, key=lambda group: (-len(group.images), group.order))
    large = [group for group in by_size if 1 < len(group.images) > LARGE_PART * total]
    for group, name in zip(large, _deal_large(large, shares, total), strict=True):
        parts[name].append(group)
    placed = _size(large)
    for magnitude, similar in groupby(by_size[len(large) :], key=lambda group: len(group.images).bit_length()):
        ordered = sorted(similar, key=lambda group: group.order)
        placed += _size(ordered)
        # What each split lacks of its share of the groups up to these; 0 where it has more.
        needs = [max(0.0, shares[name] * placed - _size(part)) for name, part in parts.items()]
        if magnitude > 1:
            _cut_several(ordered, parts, needs, _fraction(f"{key} {magnitude}"))
        else:
            _cut_singles(ordered, parts, needs, phase, [int(name in required and not parts[name]) for name in parts])
    return parts


def _size(groups: Iterable[SplitGroup]) -> int:
    return sum(len(group.images) for group in groups)


def _fraction(key: str) -> float:
    """0 to 1, evenly distributed over keys, never 0."""
    return (int(hashlib.sha256(key.encode()).hexdigest()[:13], 16) + 0.5) / 16**13


def _deal_large(groups: Sequence[SplitGroup], shares: Mapping[Split, float], total: int) -> Sequence[Split]:
    """The split of each large group.

    Among the ways to deal them that exceed the shares little, the one with the earliest exponential clocks: each group
    has a clock for each split, whose rate is its share. So another group changes the others' splits where it must.
    """
    clocks = [
        {name: -math.log(_fraction(f"{group.order} {name}")) / share for name, share in shares.items()}
        for group in groups
    ]
    sizes = [len(group.images) for group in groups]
    ways = list(product(shares, repeat=len(groups)))

    def excess(way: Sequence[Split]) -> float:
        placed = {name: sum(size for size, at in zip(sizes, way, strict=True) if at == name) for name in shares}
        return sum(max(0.0, placed[name] - share * total) for name, share in shares.items())

    over = {way: excess(way) for way in ways}
    limit = min(over.values()) + LARGE_SLACK * total + 1e-9
    allowed = [way for way in ways if over[way] <= limit]
    return min(allowed, key=lambda way: sum(clock[name] for clock, name in zip(clocks, way, strict=True)))


def _cut_several(groups: Sequence[SplitGroup], parts: Parts, needs: Sequence[float], turn: float) -> None:
    """Each group to the split in whose interval its middle is; of few groups the first begins at `turn` of a circle."""
    size, whole = _size(groups), sum(needs)
    begin = turn if len(groups) * min(filter(None, needs)) < whole else 0.0
    ends = [round(end / whole, 9) for end in accumulate(needs)]
    start = 0
    for group in groups:
        middle = (begin + (start + len(group.images) / 2) / size) % 1
        start += len(group.images)
        index = next((index for index, end in enumerate(ends) if middle < end), len(ends) - 1)
        list(parts.values())[index].append(group)


def _cut_singles(
    groups: Sequence[SplitGroup], parts: Parts, needs: Sequence[float], phase: float, least: list[int]
) -> None:
    """Single pictures to what each split still needs; `least`: how many each gets at least."""
    scale = len(groups) / sum(needs)
    begin = 0
    for index, (name, end) in enumerate(zip(parts, accumulate(needs), strict=True)):
        last = len(groups) - sum(least[index + 1 :])
        wanted = math.floor(round(end * scale, 9) + phase) if index + 1 < len(parts) else len(groups)
        stop = max(begin, min(max(wanted, begin + least[index]), last))
        parts[name] += groups[begin:stop]
        begin = stop
