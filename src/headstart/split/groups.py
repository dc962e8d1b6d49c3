"""Groups of pictures that must stay in one split, each with its stratum and its place in the order of hashes."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from headstart.base.manifest import SPLITS, Image, Manifest, Split
from headstart.images.links import group_linked, link_equal

LabelSets = Mapping[int, frozenset[str]]  # image id -> its labels
Stratum = tuple[str, ...]  # the labels whose pictures are divided together; empty for background

# A combination of labels is a stratum of its own from this many pictures on: below it has too few for exact shares.
MIN_COMBINATION = 8


@dataclass(frozen=True)
class SplitGroup:
    """Pictures that must stay in one split: of one `group`, or near-duplicates.

    Attributes:
        images: the pictures.
        labels: all labels of theirs.
        stratum: what the group is divided with.
        pinned_split: the split that the source pinned one of them to.
        order: its place among others, a hash of the seed and the group: hex digits.
    """

    images: tuple[Image, ...]
    labels: frozenset[str]
    stratum: Stratum
    pinned_split: Split | None
    order: str


def label_sets(manifest: Manifest, *, boxes: bool) -> LabelSets:
    """The labels of each picture: its own, or if `boxes` those of its boxes, crowds excluded."""
    if not boxes:
        return {image.id: frozenset([image.label] if image.label else []) for image in manifest.images}
    names = {category.id: category.name for category in manifest.categories}
    labels: dict[int, set[str]] = {image.id: set() for image in manifest.images}
    for annotation in manifest.annotations:
        if not annotation.iscrowd:
            labels[annotation.image_id].add(names[annotation.category_id])
    return {image_id: frozenset(names) for image_id, names in labels.items()}


def build_groups(
    images: Sequence[Image], near_duplicates: Iterable[tuple[int, int]], labels: LabelSets, seed: int
) -> tuple[list[SplitGroup], list[Image]]:
    """Groups of pictures that stay together, and pictures that conflicting pins exclude.

    Pictures of one `group` are linked whatever source they are from: a patient in two tables is one patient. The
    order of `images` changes nothing in a group but the order of its pictures. Their `unit` is set where there are
    several, or where they have a group.
    """
    index_of = {image.id: index for index, image in enumerate(images)}
    links = [(index_of[a], index_of[b]) for a, b in near_duplicates]
    links += link_equal([image.group for image in images])
    strata = _strata(labels)
    groups: list[SplitGroup] = []
    dropped: list[Image] = []
    for indices in group_linked(len(images), links):
        members = _name_unit([images[index] for index in indices])
        # Two pins in one group: the later split keeps its pictures, since a test picture must not be trained on.
        pins = [split for split in reversed(SPLITS) if any(image.split == split for image in members)]
        pin = pins[0] if pins else None
        kept = [image for image in members if len(pins) < 2 or image.split in (None, pin)]
        dropped += [image for image in members if image not in kept]
        counts = Counter(strata[image.id] for image in kept)
        stratum = min(counts, key=lambda one: (-counts[one], one))
        all_labels = frozenset[str]().union(*(labels[image.id] for image in kept))
        groups.append(SplitGroup(tuple(kept), all_labels, stratum, pin, _order(kept, seed)))
    return groups, dropped


def _name_unit(members: Sequence[Image]) -> list[Image]:
    """The pictures with the name of their unit: of its groups the first by name, else the smallest sha256."""
    groups = {image.group for image in members if image.group is not None}
    if len(members) < 2 and not groups:
        return list(members)
    name = f"group {min(groups)}" if groups else min(image.sha256 for image in members)
    return [image.model_copy(update={"unit": name}) for image in members]


def _order(members: Sequence[Image], seed: int) -> str:
    """The smallest hash of the groups' names, or of the pictures where none has a group: a new member rarely alters it.

    No label is part of it: a picture that changes its stratum (a label becomes rare) mostly keeps its split.
    """
    names = {f"group {image.group}" for image in members if image.group is not None}
    keys = names or {image.sha256 for image in members}
    return min(hashlib.sha256(f"{seed} {key}".encode()).hexdigest() for key in keys)


def _strata(labels: LabelSets) -> dict[int, Stratum]:
    """The stratum of each picture: its combination of labels, or where that is infrequent, its rarest label.

    How rare a label is counts in powers of two, and equals are ordered by name, so that one more picture seldom makes
    another label the rarest.
    """
    frequency = Counter(label for names in labels.values() for label in names)
    combinations = Counter(labels.values())
    return {
        image_id: tuple(sorted(names))
        if len(names) < 2 or combinations[names] >= MIN_COMBINATION
        else (min(names, key=lambda label: (frequency[label].bit_length(), label)),)
        for image_id, names in labels.items()
    }
