"""Group-stratified train/val/test split: seeded, near-duplicates and groups stay together; no disk access."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from headstart.base.errors import UserError
from headstart.base.manifest import SPLITS, Image, Manifest, Split
from headstart.images.near_duplicates import group_linked, link_equal
from headstart.params.root import SplitParams


@dataclass(frozen=True)
class SplitGroup:
    """Pictures that must stay in one split: of one `group`, or near-duplicates.

    Attributes:
        images: the pictures.
        label: the label that the group is stratified by; "" for background.
        pinned_split: the split that the source pinned one of them to.
    """

    images: tuple[Image, ...]
    label: str
    pinned_split: Split | None


LabelSets = Mapping[int, frozenset[str]]  # image id -> its labels


@dataclass(frozen=True)
class SplitAssignment:
    """A manifest for each split, and pictures left out because a near-duplicate is pinned to a later split."""

    splits: Mapping[Split, Manifest]
    dropped: tuple[Image, ...]


def assign_splits(
    manifest: Manifest,
    params: SplitParams,
    seed: int,
    near_duplicates: Iterable[tuple[int, int]],
    *,
    boxes: bool = False,
) -> SplitAssignment:
    """Assign every picture to a split.

    Pinned pictures stay in the split of their source. Pictures of one `group`, and near-duplicates, go to one split
    together. Groups are assigned label by label, largest first and otherwise in an order that depends on the seed,
    each to the split that is furthest below its desired count. If the task learns from `boxes`, a picture is assigned
    by the rarest label of its boxes, the rarest labels first, so that each label comes near its shares; those without
    boxes are assigned by themselves. Source: iterative stratification, Sechidis et al. 2011.

    Args:
        manifest: all pictures.
        params: the section `split`.
        seed: the seed of params.
        near_duplicates: pairs of ids of identical or near-identical pictures.
        boxes: the task learns from boxes; else from one label a picture.

    Raises:
        UserError: a label has too few pictures for the splits asked for.
    """
    labels = label_sets(manifest, boxes=boxes)
    groups, dropped = _build_groups(manifest.images, near_duplicates, labels)
    # A classifier's near-duplicates with different labels count as what most of them are: so splits have exact sizes.
    group_labels = {
        image.id: frozenset([group.label] if group.label else []) for group in groups for image in group.images
    }
    counted = labels if boxes else group_labels
    chosen: dict[Split, list[Image]] = {name: [] for name in SPLITS}
    for group in groups:
        if group.pinned_split:
            chosen[group.pinned_split] += group.images
    shares: dict[Split, float] = {"train": params.train, "val": params.val, "test": params.test}
    free = [group for group in groups if not group.pinned_split]
    desired = {label: _DesiredCounts(shares, count) for label, count in _count_labels(free, counted).items()}
    for label in sorted(desired, key=lambda label: (desired[label].total, label)):
        rng = random.Random(f"{seed} {label}")  # noqa: S311 (not a secret)
        _distribute([group for group in free if group.label == label], desired, chosen, counted, rng)
    _check_labels(chosen, shares, labels, manifest.labels() if boxes else [])
    splits = {name: manifest.subset(sorted(images, key=lambda image: image.id)) for name, images in chosen.items()}
    return SplitAssignment(splits, tuple(dropped))


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


def _build_groups(
    images: Sequence[Image], near_duplicates: Iterable[tuple[int, int]], labels: LabelSets
) -> tuple[list[SplitGroup], list[Image]]:
    """Groups of pictures that stay together, and pictures that conflicting pins exclude."""
    index_of = {image.id: index for index, image in enumerate(images)}
    links = [(index_of[a], index_of[b]) for a, b in near_duplicates]
    links += link_equal([(image.source, image.group) if image.group is not None else None for image in images])
    frequency = Counter(label for names in labels.values() for label in names)
    groups: list[SplitGroup] = []
    dropped: list[Image] = []
    for indices in group_linked(len(images), links):
        members = [images[index] for index in indices]
        # Two pins in one group: the later split keeps its pictures, since a test picture must not be trained on.
        pins = [split for split in reversed(SPLITS) if any(image.split == split for image in members)]
        pin = pins[0] if pins else None
        kept = [image for image in members if len(pins) < 2 or image.split in (None, pin)]
        dropped += [image for image in members if image not in kept]
        rarest = [min(labels[image.id], key=lambda label: (frequency[label], label), default="") for image in kept]
        groups.append(SplitGroup(tuple(kept), Counter(rarest).most_common(1)[0][0], pin))
    return groups, dropped


class _DesiredCounts(dict[Split, float]):
    """How many pictures of one label each split still needs for its share; `total`: pictures of the label."""

    def __init__(self, shares: Mapping[Split, float], total: int) -> None:
        super().__init__({name: share * total for name, share in shares.items() if share > 0})
        self.total = total


def _count_labels(groups: Iterable[SplitGroup], labels: LabelSets) -> Counter[str]:
    """Pictures of each label; those without one count as the label "", as in `_build_groups`."""
    return Counter(label for group in groups for image in group.images for label in labels[image.id] or {""})


def _distribute(
    groups: list[SplitGroup],
    desired: Mapping[str, _DesiredCounts],
    chosen: dict[Split, list[Image]],
    labels: LabelSets,
    rng: random.Random,
) -> None:
    """Assign groups of one label, each to the split that needs most of it, or among equals most of its other labels."""
    rng.shuffle(groups)
    groups.sort(key=lambda group: -len(group.images))  # stable: equal sizes stay shuffled
    without_label = [
        name
        for group in groups[:1]
        for name in desired[group.label]
        if not _has_label(chosen[name], group.label, labels)
    ]
    for index, group in enumerate(groups):
        remaining = len(groups) - index
        needed, counts = desired[group.label], _count_labels([group], labels)
        # The last groups go to splits that would else have none of this label: a tenth of five pictures is still one.
        candidates = without_label if 0 < len(without_label) >= remaining else list(needed)
        target = max(candidates, key=lambda name: (needed[name], sum(desired[label][name] for label in counts)))
        chosen[target] += group.images
        for label, count in counts.items():
            desired[label][target] -= count
        if target in without_label:
            without_label.remove(target)


def _has_label(images: Iterable[Image], label: str, labels: LabelSets) -> bool:
    return any(label in labels[image.id] or (not label and not labels[image.id]) for image in images)


def _check_labels(
    chosen: Mapping[Split, Sequence[Image]], shares: Mapping[Split, float], labels: LabelSets, known: Sequence[str]
) -> None:
    """Raise UserError where a split has no picture of a label; a test set of pinned pictures alone may lack some."""
    present = {name: {label for image in chosen[name] for label in labels[image.id]} for name in SPLITS}
    for name in SPLITS:
        for label in sorted(frozenset(known).union(*labels.values())):
            if label in present[name] or (name == "test" and shares[name] == 0 and chosen[name]):
                continue
            count = sum(label in names for names in labels.values())
            raise UserError(
                f"params.yaml: fetch.sources: label {label!r} has {count} picture{'s' if count != 1 else ''}, none is "
                f"left for {name}; add different pictures of it (three at least), or take the label out"
            )
