"""Whether the group, the source or the order of the files predicts the label: what a random split would leak."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from headstart.base.arrays import Ints
from headstart.base.manifest import Image
from headstart.base.units import unit_numbers
from headstart.metrics.intervals import difference_interval

NEIGHBOURS = 5  # in the order of the files, whose majority predicts a label
BLOCKS = 40  # consecutive parts of the order that count as one observation each: neighbours are alike
MIN_PICTURES = 20
MATERIAL = 0.03  # a gain over chance that is surely larger is said
LINES = {
    "group": "{}: a group is in one split alone, so the test set shows how the model does on new groups, and intervals "
    "count groups; pictures split one by one would show more.",
    "source": "may leak: {}; a model can learn the source in place of the label: add pictures of every label from "
    "every source.",
    "file order": "may leak: {}; if files of one thing follow one another, give the source group_by.",
}
_TOO_GOOD = (
    "follow one another, all figures here hold only for more pictures of the same things; for new ones they are too "
    "high and their intervals too narrow: give the source"
)
_NO_GROUPS = "may leak: the source has no group_by and {}. If files of one thing (a module, a patient, a video) "
_SMALL_GROUPS = "may leak: {}, from files of other groups. If files of one thing larger than a group "


@dataclass(frozen=True)
class Leak:
    """How well something that is no picture predicts the label.

    Attributes:
        what: `group`, `source` or `file order`.
        accuracy: share of pictures whose label is predicted.
        chance: the same of the most frequent label.
        low: lower end of the accuracy's 95 % interval; that of the gain over chance, added to chance.
        high: its upper end.
        line: what it means in short, where the gain is surely more than `MATERIAL`; else empty.
        sentence: the same in full, with the interval and what it does to the figures, for the report.
    """

    what: str
    accuracy: float
    chance: float
    low: float
    high: float
    line: str
    sentence: str


def find_leaks(images: Sequence[Image], labels: Sequence[str]) -> list[Leak]:
    """The checks that the pictures allow; each leaves the picture itself out.

    - group: the most frequent label of the others of its group, for pictures in groups of several;
    - source: that of the others of its source, where there are several sources;
    - file order: that of the nearest neighbours in its source's order of file names that are in other units, since
      what is in its own unit stays in its split. Not where each label's files are one run: the order is then the label.

    Args:
        images: with their units.
        labels: of each picture.
    """
    groups = _shared([image.group for image in images])
    sources = _shared([image.source for image in images])
    several = sources if len({image.source for image in images}) > 1 else []
    of_group = _predict_by_key([images[index].group for index in groups], [labels[index] for index in groups])
    of_source = _predict_by_key([images[index].source for index in several], [labels[index] for index in several])
    ordered, of_order, blocks = _predict_by_order(images, labels)
    grouped = any(images[index].group is not None for index in ordered)
    in_full = (
        f"{_SMALL_GROUPS}{_TOO_GOOD} a group_by of the things." if grouped else f"{_NO_GROUPS}{_TOO_GOOD} group_by."
    )
    return [
        *_leak("group", labels, groups, of_group, unit_numbers([images[index] for index in groups])),
        *_leak("source", labels, several, of_source, unit_numbers([images[index] for index in several])),
        *_leak("file order", labels, ordered, of_order, blocks, in_full),
    ]


def _shared(keys: Sequence[str | None]) -> list[int]:
    """Positions whose key another position has too; None is no key."""
    counts = Counter(keys)
    return [index for index, key in enumerate(keys) if key is not None and counts[key] > 1]


def _leak(
    what: str,
    labels: Sequence[str],
    chosen: Sequence[int],
    predicted: Sequence[str],
    units: Ints,
    in_full: str = "",
) -> list[Leak]:
    """One check of the chosen pictures in a list; an empty list where they are too few or of one label."""
    own = [labels[index] for index in chosen]
    if len(chosen) < MIN_PICTURES or len(set(own)) < 2:
        return []
    most = Counter(own).most_common(1)[0][0]
    right = np.array([label == guess for label, guess in zip(own, predicted, strict=True)], np.float64)
    usual = np.array([label == most for label in own], np.float64)
    gain = difference_interval(right - usual, units)
    assert gain.low is not None
    assert gain.high is not None
    accuracy, chance = float(right.mean()), float(usual.mean())
    low, high = max(0.0, chance + float(gain.low)), min(1.0, chance + float(gain.high))
    if gain.low <= MATERIAL:
        return [Leak(what, accuracy, chance, low, high, "", "")]
    figures, by_chance = f"the {what} predicts the label for {100 * accuracy:.0f} % of the pictures", 100 * chance
    interval = f"95 % interval {100 * low:.0f} % to {100 * high:.0f} %; chance {by_chance:.0f} %"
    line = LINES[what].format(f"{figures} (chance {by_chance:.0f} %)")
    sentence = (in_full or LINES[what]).format(f"{figures} ({interval})")
    return [Leak(what, accuracy, chance, low, high, line, sentence)]


def _predict_by_key(keys: Sequence[str | None], labels: Sequence[str]) -> list[str]:
    """The most frequent label of the other pictures with the same key; of equals the one most frequent in all."""
    overall = Counter(labels)
    counts: dict[str | None, Counter[str]] = defaultdict(Counter)
    for key, label in zip(keys, labels, strict=True):
        counts[key][label] += 1

    def of_the_others(key: str | None, label: str) -> str:
        return max(overall, key=lambda one: (counts[key][one] - (one == label), overall[one], one))

    return [of_the_others(key, label) for key, label in zip(keys, labels, strict=True)]


def _predict_by_order(images: Sequence[Image], labels: Sequence[str]) -> tuple[list[int], list[str], Ints]:
    """Pictures with neighbours, the label that these predict, and the block of the order that each is in."""
    by_source: dict[str, list[int]] = defaultdict(list)
    for index in sorted(range(len(images)), key=lambda index: (images[index].place or 0, index)):
        by_source[images[index].source].append(index)
    units = unit_numbers(images).tolist()
    chosen: list[int] = []
    predicted: list[str] = []
    blocks: list[tuple[str, int]] = []
    first_block: dict[int, tuple[str, int]] = {}  # a unit is in one block
    for source, ordered in by_source.items():
        own = [labels[index] for index in ordered]
        if 1 + sum(a != b for a, b in pairwise(own)) <= len(set(own)):
            continue
        size = -(-len(ordered) // BLOCKS)
        for place, near in enumerate(_nearest_others([units[index] for index in ordered])):
            votes = [own[other] for other in near]
            if votes:
                chosen.append(ordered[place])
                predicted.append(max(votes, key=votes.count))  # of equals the nearest one's
                blocks.append(first_block.setdefault(units[ordered[place]], (source, place // size)))
    numbers = {block: number for number, block in enumerate(dict.fromkeys(blocks))}
    return chosen, predicted, np.array([numbers[block] for block in blocks], np.int64)


def _nearest_others(units: Sequence[int]) -> list[list[int]]:
    """For each position the nearest positions of other units, at most NEIGHBOURS, the nearest first."""
    count = len(units)
    before, after = (
        list(range(-1, count - 1)),
        list(range(1, count + 1)),
    )  # the nearest one of another unit than its own
    for place in range(1, count):
        before[place] = before[place - 1] if units[place] == units[place - 1] else place - 1
    for place in range(count - 2, -1, -1):
        after[place] = after[place + 1] if units[place] == units[place + 1] else place + 1
    found = []
    for place, unit in enumerate(units):
        near: list[int] = []
        left, right = before[place], after[place]
        while len(near) < NEIGHBOURS and (left >= 0 or right < count):
            if left >= 0 and (right >= count or place - left <= right - place):
                near.append(left)
                left -= 1
                left = before[left] if left >= 0 and units[left] == unit else left
            else:
                near.append(right)
                right += 1
                right = after[right] if right < count and units[right] == unit else right
        found.append(near)
    return found
