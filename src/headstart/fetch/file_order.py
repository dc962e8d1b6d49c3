"""The order in which the files of a source follow one another by their names, whatever folders they are in."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from headstart.fetch.sources.records import SourceImage


def file_order(images: Sequence[SourceImage]) -> list[int]:
    """Each picture's place in its source, from 0: by the numbers in its file name, then by the name, then as listed.

    Folders do not count, since they are often the label. Nor do numbers that every picture of a label shares
    (`n02085620` of `n02085620_10074`), nor, before numbers, the words: `cat.2` and `dog.2` are neighbours.
    """
    by_source: dict[str, list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        by_source[image.source].append(index)
    places = [0] * len(images)
    for indices in by_source.values():
        names = [_stem(images[index].location) for index in indices]
        numbers = [tuple(map(int, re.findall(r"[0-9]+", name))) for name in names]
        kept = _telling_columns(numbers, [images[index].label for index in indices])
        keys = [
            (tuple(row[column] for column in kept if column < len(row)), name, index)
            for row, name, index in zip(numbers, names, indices, strict=True)
        ]
        for place, (_, _, index) in enumerate(sorted(keys)):
            places[index] = place
    return places


def _stem(location: str) -> str:
    """The file's name without folders, suffix, and without what follows an address."""
    path = unquote(urlsplit(location).path) if "://" in location else location.replace("\\", "/")
    return PurePosixPath(path).stem


def _telling_columns(numbers: Sequence[tuple[int, ...]], labels: Sequence[str | None]) -> list[int]:
    """Which number of a name, from its left, differs between pictures of one label."""
    width = max(map(len, numbers), default=0)
    values: dict[tuple[int, str | None], set[int]] = defaultdict(set)
    for row, label in zip(numbers, labels, strict=True):
        for column, number in enumerate(row):
            values[column, label].add(number)
    return [column for column in range(width) if any(len(values[column, label]) > 1 for label in set(labels))]
