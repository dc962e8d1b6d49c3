"""Group-stratified train/val/test split that hangs on each picture's own hash; no disk access."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from headstart.base.errors import UserError, list_some
from headstart.base.manifest import SPLITS, Image, Manifest, Split
from headstart.params.root import SplitParams
from headstart.split.groups import LabelSets, SplitGroup, Stratum, build_groups, label_sets
from headstart.split.quantiles import Parts, divide

GOLDEN_RATIO = (5**0.5 - 1) / 2  # its multiples modulo 1 are spread evenly, however many of them there are


@dataclass(frozen=True)
class SplitAssignment:
    """A manifest for each split, and what happened to pinned pictures.

    Attributes:
        splits: a manifest for each split.
        dropped: pictures left out because a near-duplicate is pinned to a later split.
        from_train: split -> how many pictures it got of those pinned to train, where the sources have none for it.
    """

    splits: Mapping[Split, Manifest]
    dropped: tuple[Image, ...]
    from_train: Mapping[Split, int]


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
    together. The groups of a label are ordered by a hash of the seed and the group, and cut where the shares are. So
    the split of a picture depends on its own bytes, not on the order or the number of the others: one more picture
    that nothing links moves at most two others of its label, unless some group has more than an eighth of the label's
    pictures; a label's shares are right within one picture where there are enough single pictures. One more picture
    that links two groups moves one of them.

    If the task learns from `boxes`, pictures are divided by their combination of labels, or where that is infrequent
    by their rarest label, and those without boxes by themselves (stratification by label sets, Sechidis et al. 2011).

    Where all pictures are pinned and a split has none, it is divided from the pictures pinned to train, by its share.

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
    groups, dropped = build_groups(manifest.images, near_duplicates, labels, seed)
    all_shares: dict[Split, float] = {"train": params.train, "val": params.val, "test": params.test}
    shares = {name: share for name, share in all_shares.items() if share > 0}
    missing = _missing_splits(groups, shares)
    if missing:
        groups = [replace(group, pinned_split=None) if group.pinned_split == "train" else group for group in groups]
        shares = _rescale({name: share for name, share in shares.items() if name == "train" or name in missing})
    parts: Parts = {name: [group for group in groups if group.pinned_split == name] for name in SPLITS}
    free = [group for group in groups if group.pinned_split is None]
    _divide_strata(free, parts, shares, manifest.labels(), seed)
    _repair(parts, shares, manifest.labels())
    _check_labels(parts, all_shares, manifest.images, labels, manifest.labels() if boxes else [])
    chosen = {name: [image for group in part for image in group.images] for name, part in parts.items()}
    splits = {name: manifest.subset(sorted(images, key=lambda image: image.id)) for name, images in chosen.items()}
    return SplitAssignment(splits, tuple(dropped), {name: len(chosen[name]) for name in missing})


def _missing_splits(groups: Iterable[SplitGroup], shares: Mapping[Split, float]) -> list[Split]:
    """The splits that no picture can come to though they have a share, where train has pinned ones to give."""
    pins = {group.pinned_split for group in groups}
    return [name for name in shares if name not in pins] if "train" in pins and None not in pins else []


def _rescale(shares: Mapping[Split, float]) -> dict[Split, float]:
    return {name: share / sum(shares.values()) for name, share in shares.items()}


def _divide_strata(
    free: Iterable[SplitGroup], parts: Parts, shares: Mapping[Split, float], names: list[str], seed: int
) -> None:
    """Add the free groups to the parts, stratum by stratum."""
    strata: dict[Stratum, list[SplitGroup]] = defaultdict(list)
    for group in free:
        strata[group.stratum].append(group)
    pinned = {name: {group.stratum for group in part} for name, part in parts.items()}
    number = {label: index for index, label in enumerate(names)}
    labels_elsewhere = {
        label for stratum, groups in strata.items() for group in groups for label in group.labels - {*stratum}
    }
    for stratum, groups in sorted(strata.items()):
        # A label whose pictures are also in other strata gets its least one from `_repair`, if it must.
        single = len(stratum) < 2 and not labels_elsewhere.intersection(stratum)
        required = [name for name in shares if single and stratum not in pinned[name]]
        phase = (0.5 + GOLDEN_RATIO * sum(number[label] for label in stratum)) % 1
        for name, part in divide(groups, shares, phase, required, f"{seed} {stratum}").items():
            parts[name] += part


def _repair(parts: Parts, shares: Iterable[Split], names: Iterable[str]) -> None:
    """Give each split that lacks a label the smallest group of it that another split can spare."""
    counts = {name: Counter(label for group in part for label in group.labels) for name, part in parts.items()}
    for label in names:
        for lacking in [name for name in shares if not counts[name][label]]:
            spare = [
                (-counts[donor][label], len(group.images), group.order, donor, group)
                for donor in SPLITS
                for group in parts[donor]
                if label in group.labels
                and group.pinned_split is None
                and min(counts[donor][x] for x in group.labels) > 1
            ]
            if spare:
                *_, donor, group = min(spare, key=lambda one: one[:4])
                parts[donor].remove(group)
                parts[lacking].append(group)
                counts[donor].subtract(group.labels)
                counts[lacking].update(group.labels)


def _check_labels(
    parts: Parts, shares: Mapping[Split, float], images: Sequence[Image], labels: LabelSets, known: Sequence[str]
) -> None:
    """Raise UserError where a split has no picture of a label; a test set of pinned pictures alone may lack some."""
    for name, part in parts.items():
        if not part:
            _check_pins(name, shares[name], images)
        present = {label for group in part for label in group.labels}
        for label in sorted(frozenset(known).union(*labels.values())):
            if label not in present and not (name == "test" and shares[name] == 0 and part):
                of_label = [image for image in images if label in labels[image.id]]
                groups = sum(label in group.labels for one in parts.values() for group in one)
                raise UserError(f"params.yaml: fetch.sources: {_lacking_label(name, label, of_label, groups)}")


def _check_pins(name: Split, share: float, images: Sequence[Image]) -> None:
    """Raise UserError where pins, and no label, are why a split has no picture."""
    if share == 0:
        raise UserError(
            f"params.yaml: split.{name}: 0: no source pins a picture to {name}, so none is left for {name}; give it a "
            "share"
        )
    if all(image.split for image in images):
        raise UserError(
            f"params.yaml: fetch.sources: all {len(images):,} pictures are pinned {_describe_pins(images)}, so none is "
            f"left for {name}; pin some to {name}, or none at all"
        )


def _describe_pins(images: Sequence[Image]) -> str:
    pins = " and ".join(pin for pin in SPLITS if any(image.split == pin for image in images))
    sources = list_some(sorted({image.source for image in images}), 3)
    return f"to {pins} by {sources} (folders named like splits, lists, a column `split` or the key `split:`)"


def _lacking_label(name: Split, label: str, images: Sequence[Image], groups: int) -> str:
    """The error for a label that a split lacks: pins are named where they are the cause."""
    count = len(images)
    lacks = f"label {label!r} has {count} picture{'s' if count != 1 else ''}, none is left for {name}"
    if images and all(image.split for image in images):
        return f"{lacks}: all of it are pinned {_describe_pins(images)}; pin some to {name}, or none at all"
    if 0 < groups < count:
        lacks += f": near-duplicates and pictures of one `group` stay together, which leaves {groups} to divide"
    return f"{lacks}; add different pictures of it (three at least), or take the label out"
