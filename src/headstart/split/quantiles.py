"""Groups in an order of hashes, cut where the cumulative shares are: one more picture moves the cuts by one at most."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate, groupby

from headstart.base.manifest import Split
from headstart.split.groups import SplitGroup

Parts = dict[Split, list[SplitGroup]]

# A group of more than this part of its stratum is placed by what is needed: no cut comes near the shares with it.
LARGE_PART = 1 / 8


def divide(
    groups: Sequence[SplitGroup], shares: Mapping[Split, float], phase: float, required: Collection[Split]
) -> Parts:
    """Divide the groups of one stratum.

    1. Large groups, the largest first, go to the split that is furthest below its share.
    2. Other groups of several pictures are cut size by size (8 to 15 pictures, 4 to 7, 2 or 3), each where it brings
       the groups up to that one nearest to the shares.
    3. Single pictures are cut so that the sum comes to the shares.

    The cuts of single pictures are `floor(f(n) + phase)` of n pictures, where f rises by 0 to 1 with each of them. So
    one more picture moves each cut by one place at most, and of three splits at most two other pictures change theirs.
    Steps 1 and 2 do not depend on how many single pictures there are, but for how many pictures a large group is.

    Args:
        groups: of one stratum; not pinned.
        shares: split -> its share, above 0; together 1.
        phase: 0 to 1; 0.5 rounds the cuts, and different ones keep the rounding of many strata from adding up.
        required: splits that get one group at least, if there are enough single pictures.
    """
    total = _size(groups)
    parts: Parts = {name: [] for name in shares}
    by_size = sorted(groups, key=lambda group: (-len(group.images), group.order))
    large = [group for group in by_size if 1 < len(group.images) > LARGE_PART * total]
    for group in large:
        parts[max(shares, key=lambda name: shares[name] * total - _size(parts[name]))].append(group)
    placed = _size(large)
    for magnitude, similar in groupby(by_size[len(large) :], key=lambda group: len(group.images).bit_length()):
        ordered = sorted(similar, key=lambda group: group.order)
        placed += _size(ordered)
        # What each split lacks of its share of the groups up to these; 0 where it has more.
        needs = [max(0.0, shares[name] * placed - _size(part)) for name, part in parts.items()]
        if magnitude > 1:
            _cut_several(ordered, parts, needs)
        else:
            _cut_singles(ordered, parts, needs, phase, [int(name in required and not parts[name]) for name in parts])
    return parts


def _size(groups: Iterable[SplitGroup]) -> int:
    return sum(len(group.images) for group in groups)


def _cut_several(groups: Sequence[SplitGroup], parts: Parts, needs: Sequence[float]) -> None:
    """Each group to the split in whose interval its middle is."""
    scale = _size(groups) / sum(needs)
    ends = [round(end * scale, 9) for end in accumulate(needs)]
    start = 0
    for group in groups:
        middle = start + len(group.images) / 2
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
