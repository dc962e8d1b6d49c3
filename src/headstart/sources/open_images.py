"""Open Images V7: pictures of named classes, with boxes or with labels that people verified.

The tables, their columns and their traps are in open_images_tables.py; here is which pictures are taken.
"""

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from headstart.download import is_remote, local_path
from headstart.errors import UserError
from headstart.fetch_params import DownloadParams, OpenImagesParams
from headstart.sources import open_images_tables as tables
from headstart.sources.open_images_tables import About, Vocabulary
from headstart.sources.wanted import Box, Local, Remote, Wanted, only_label


@dataclass(slots=True)
class Seen:
    """What the tables of one split say about one picture, in the names of the classes asked for.

    There may be a million of these (`Person`), so what is empty is shared.

    Attributes:
        present: verified to be there, by a label or a box.
        absent: verified not to be there.
        others: of `negatives.from`, those verified to be there.
        boxes: of the classes asked for.
        passes: whether all boxes pass the filters.
    """

    present: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()
    boxes: tuple[Box, ...] = ()
    passes: bool = True

    def shows(self, *, by_boxes: bool) -> frozenset[str]:
        """The classes that the picture can be taken for."""
        if by_boxes:
            return frozenset(box.label for box in self.boxes) if self.passes else frozenset()
        return self.present


@dataclass(frozen=True)
class Choice:
    """A picture that is taken, for one of the classes or as a negative (`name` is None)."""

    split: str
    image: str
    seen: Seen
    name: str | None


Splits = list[tuple[str, dict[str, Seen]]]


def wanted(params: OpenImagesParams, downloads: DownloadParams, *, detect: bool) -> Iterator[Wanted]:
    """The pictures that are taken, sorted by split and id.

    For `detect`, pictures with boxes of the classes. To classify, pictures on which people verified one of the
    classes and no other of them. The choice depends on the tables and on params alone: pictures are drawn in the
    order of the hashes of their ids, from one split after the other.

    Raises:
        UserError: a class is unknown, a table cannot be had, or there is no picture of a class.
    """
    vocabulary = tables.vocabulary(params.metadata_url, downloads)
    names = [vocabulary.names[vocabulary.mid(name, "classes")] for name in params.classes]
    splits: Splits = []
    for split in params.splits:
        splits.append((split, _seen(split, params, downloads, vocabulary, detect=detect)))
        chosen, counts, goals = choose(splits, names, params, detect=detect)
        if params.images_per_class is not None and all(counts[name] >= goal for name, goal in goals.items()):
            break
    for name, goal in goals.items():
        if not counts[name]:
            where = ", ".join(params.splits)
            raise UserError(
                f"open_images: no picture for {name!r} in {where}; loosen the filters or name another class"
            )
        if counts[name] < goal:
            print(f"fetch: open_images: only {counts[name]:,} of {goal:,} pictures for {name!r}", file=sys.stderr)
    for split in params.splits:
        its_choices = sorted((c for c in chosen if c.split == split), key=lambda choice: choice.image)
        if its_choices:
            about = tables.about(split, params.metadata_url, downloads, [choice.image for choice in its_choices])
            for choice in its_choices:
                yield _picture(choice, about.get(choice.image), params, detect=detect)


def _seen(
    split: str, params: OpenImagesParams, downloads: DownloadParams, vocabulary: Vocabulary, *, detect: bool
) -> dict[str, Seen]:
    """What the tables of a split say, by picture. A table is read only if the choice depends on it."""
    asked = vocabulary.owners(params.classes, "classes")
    own = {vocabulary.mid(name, "classes") for name in params.classes}
    others = vocabulary.owners(params.negatives.from_classes if params.negatives else (), "negatives.from")
    flags = {flag: str(int(value)) for flag, value in params.flags().items()}
    by_boxes = detect or bool(flags)
    seen: dict[str, Seen] = {}
    if by_boxes:
        for row in tables.boxes(split, params.metadata_url, downloads, list(asked)):
            picture, name = seen.setdefault(row.image, Seen()), asked[row.mid]
            picture.present |= {name}
            picture.boxes += (Box(name, row.xmin, row.ymin, row.xmax, row.ymax, row.flags["IsGroupOf"] == "1"),)
            picture.passes &= all(row.flags[flag] == value for flag, value in flags.items())
    if not by_boxes or params.negatives is not None:
        for image, mid, is_there in tables.labels(split, params.metadata_url, downloads, [*asked, *others]):
            picture = seen.setdefault(image, Seen())
            if mid in others and mid not in asked and is_there:
                picture.others |= {others[mid]}
            elif mid in asked and is_there:
                picture.present |= {asked[mid]}
            elif mid in own:  # that a picture shows no dog does not mean that it shows no animal
                picture.absent |= {asked[mid]}
    return seen


def choose(
    splits: Splits, names: list[str], params: OpenImagesParams, *, detect: bool
) -> tuple[list[Choice], Counter[str], dict[str, int]]:
    """Which pictures to take.

    Returns:
        The pictures, how many there are for each class and for the label of the negatives, and how many there
        should be.
    """
    by_boxes, goal = detect or bool(params.flags()), params.images_per_class
    chosen: dict[str, Choice] = {}
    counts: Counter[str] = Counter()
    for split, seen in splits:
        shown = {image: seen[image].shows(by_boxes=by_boxes) for image in _in_order(seen)}
        for name in names:
            for image, found in shown.items():
                if goal is not None and counts[name] >= goal:
                    break
                if name in found and image not in chosen and (detect or len(found) == 1):
                    chosen[image] = Choice(split, image, seen[image], name)
                    counts.update(found)
    goals = dict.fromkeys(names, goal or 1)
    if params.negatives is not None:
        default = len(chosen) if goal is None else goal * len(names)
        goals[params.negatives.label] = number = params.negatives.images or default
        negatives = [choice for choice in _negatives(splits, names, params) if choice.image not in chosen][:number]
        counts[params.negatives.label] = len(negatives)
        return [*chosen.values(), *negatives], counts, goals
    return list(chosen.values()), counts, goals


def _in_order(seen: dict[str, Seen]) -> list[str]:
    """A draw that is the same everywhere: neither the order of the tables nor a seed has a part in it."""
    return sorted(seen, key=lambda image: hashlib.sha256(image.encode()).digest())


def _negatives(splits: Splits, names: list[str], params: OpenImagesParams) -> Iterator[Choice]:
    """Pictures that show none of the classes: as many verified ones as of each of the other classes, in turn."""
    negatives = params.negatives
    assert negatives is not None
    verified = negatives.verified if negatives.verified is not None else not negatives.from_classes
    for split, seen in splits:
        groups: dict[str, list[str]] = {}
        for image in _in_order(seen):
            picture = seen[image]
            if picture.present:
                continue
            if picture.others:
                groups.setdefault(min(picture.others), []).append(image)
            elif verified and picture.absent >= set(names):
                groups.setdefault("", []).append(image)
        for turn in zip_longest(*(groups[name] for name in sorted(groups))):
            yield from (Choice(split, image, seen[image], None) for image in turn if image is not None)


def _picture(choice: Choice, about: About | None, params: OpenImagesParams, *, detect: bool) -> Wanted:
    url = f"{params.images_url}/{choice.split}/{choice.image}.jpg"
    boxes = choice.seen.boxes if choice.name is not None else ()
    negative = params.negatives.label if params.negatives is not None and not detect else None
    return Wanted(
        location=url,
        source=f"open_images:{choice.split}",
        content=Remote(url) if is_remote(url) else Local(local_path(url)),
        label=only_label(boxes) if detect else choice.name or negative,
        boxes=boxes,
        frame=(1.0, 1.0),
        stored_frame=True,
        rotation=about.rotation if about else None,
        license=about.license or None if about else None,
        author=about.author or None if about else None,
        landing_url=about.landing_url or None if about else None,
    )
