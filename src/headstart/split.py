"""train, val and test: stratified, seeded, and no picture in two of them."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as Pillow

from headstart import coco, pool
from headstart.coco import Image, Manifest
from headstart.errors import UserError
from headstart.files import write_json
from headstart.params import SPLITS, Params, Split, SplitParams
from headstart.twins import Hash, find_twins, fingerprint, joined


@dataclass(frozen=True)
class Unit:
    """Pictures that stay together: one group, or what looks the same. `label` is what they are dealt under."""

    images: tuple[Image, ...]
    label: str
    pin: Split | None


Labels = Mapping[int, frozenset[str]]  # id of a picture -> what it shows


@dataclass(frozen=True)
class Assignment:
    """Who goes where, and what was left out because the same picture is pinned in a later split."""

    splits: Mapping[Split, Manifest]
    dropped: tuple[Image, ...]


def split(
    manifest: Manifest, params: SplitParams, seed: int, twins: Iterable[tuple[int, int]], *, detect: bool = False
) -> Assignment:
    """Give every picture its split.

    Pinned pictures stay where their source put them. Pictures of one `group`, and twins (pairs of ids of identical or
    near-identical pictures), go to one split as one unit. Units are dealt label by label, largest first and otherwise
    by the seed, each to the split that lacks most of its share. For a detector a picture is
    dealt under the rarest label of its boxes, the rarest labels first, so that each label comes near its shares; those
    without boxes are dealt by themselves. Source: iterative stratification, Sechidis et al. 2011.

    Raises:
        UserError: a label has too few pictures for the splits asked for.
    """
    labels = shown(manifest, detect=detect)
    units, dropped = _units(manifest.images, twins, labels)
    # A classifier's twins with different labels count as what most of them are: so the splits' sizes are exact.
    whole = {image.id: frozenset([unit.label] if unit.label else []) for unit in units for image in unit.images}
    counted = labels if detect else whole
    chosen: dict[Split, list[Image]] = {name: [] for name in SPLITS}
    for unit in units:
        if unit.pin:
            chosen[unit.pin] += unit.images
    shares: dict[Split, float] = {"train": params.train, "val": params.val, "test": params.test}
    free = [unit for unit in units if not unit.pin]
    lacking = {label: _Lacking(shares, count) for label, count in _count(free, counted).items()}
    for label in sorted(lacking, key=lambda label: (lacking[label].total, label)):
        rng = random.Random(f"{seed} {label}")  # noqa: S311 (not a secret)
        _deal([unit for unit in free if unit.label == label], lacking, chosen, counted, rng)
    _check(chosen, shares, labels, manifest.labels() if detect else [])
    parts = {name: manifest.only(sorted(some, key=lambda image: image.id)) for name, some in chosen.items()}
    return Assignment(parts, tuple(dropped))


def shown(manifest: Manifest, *, detect: bool) -> Labels:
    """What each picture shows: its label, or for a detector the labels of its boxes, crowds aside."""
    if not detect:
        return {image.id: frozenset([image.label] if image.label else []) for image in manifest.images}
    names = {category.id: category.name for category in manifest.categories}
    found: dict[int, set[str]] = {image.id: set() for image in manifest.images}
    for annotation in manifest.annotations:
        if not annotation.iscrowd:
            found[annotation.image_id].add(names[annotation.category_id])
    return {image: frozenset(some) for image, some in found.items()}


def _units(images: Sequence[Image], twins: Iterable[tuple[int, int]], labels: Labels) -> tuple[list[Unit], list[Image]]:
    place = {image.id: index for index, image in enumerate(images)}
    links = [(place[a], place[b]) for a, b in twins]
    first: dict[tuple[str, str], int] = {}
    for index, image in enumerate(images):
        if image.group is not None:
            links.append((first.setdefault((image.source, image.group), index), index))
    common = Counter(label for some in labels.values() for label in some)
    units: list[Unit] = []
    dropped: list[Image] = []
    for numbers in joined(len(images), links):
        some = [images[number] for number in numbers]
        # Two pins in one unit: the later split keeps its pictures, since an exam that was seen is no exam.
        pins = [pin for pin in reversed(SPLITS) if any(image.split == pin for image in some)]
        pin = pins[0] if pins else None
        kept = [image for image in some if len(pins) < 2 or image.split in (None, pin)]
        dropped += [image for image in some if image not in kept]
        rarest = [min(labels[image.id], key=lambda label: (common[label], label), default="") for image in kept]
        units.append(Unit(tuple(kept), Counter(rarest).most_common(1)[0][0], pin))
    return units, dropped


class _Lacking(dict[Split, float]):
    """How many pictures of one label each split still lacks of its share."""

    def __init__(self, shares: Mapping[Split, float], total: int) -> None:
        super().__init__({name: share * total for name, share in shares.items() if share > 0})
        self.total = total


def _count(units: Iterable[Unit], labels: Labels) -> Counter[str]:
    """Pictures by what they show; those that show nothing count as the label "", as in `_units`."""
    return Counter(label for unit in units for image in unit.images for label in labels[image.id] or {""})


def _deal(
    units: list[Unit],
    lacking: Mapping[str, _Lacking],
    chosen: dict[Split, list[Image]],
    labels: Labels,
    rng: random.Random,
) -> None:
    """Units of one label, each to the split that lacks most of it, or among equals most of what else it shows."""
    rng.shuffle(units)
    units.sort(key=lambda unit: -len(unit.images))  # stable: equal sizes stay shuffled
    empty = [name for unit in units[:1] for name in lacking[unit.label] if not _has(chosen[name], unit.label, labels)]
    for number, unit in enumerate(units):
        left = len(units) - number
        mine, others = lacking[unit.label], _count([unit], labels)
        # The last units go to splits that would else have none of this label: a tenth of five pictures is still one.
        open_to = empty if 0 < len(empty) >= left else list(mine)
        target = max(open_to, key=lambda name: (mine[name], sum(lacking[label][name] for label in others)))
        chosen[target] += unit.images
        for label, count in others.items():
            lacking[label][target] -= count
        if target in empty:
            empty.remove(target)


def _has(images: Iterable[Image], label: str, labels: Labels) -> bool:
    return any(label in labels[image.id] or (not label and not labels[image.id]) for image in images)


def _check(
    chosen: Mapping[Split, Sequence[Image]], shares: Mapping[Split, float], labels: Labels, known: Sequence[str]
) -> None:
    present = {name: {label for image in chosen[name] for label in labels[image.id]} for name in SPLITS}
    for name in SPLITS:
        for label in sorted(frozenset(known).union(*labels.values())):
            if label in present[name] or (name == "test" and shares[name] == 0 and chosen[name]):
                continue
            count = sum(label in some for some in labels.values())
            raise UserError(
                f"params.yaml: fetch.sources: label {label!r} has {count} picture{'s' if count != 1 else ''}, none is "
                f"left for {name}; add different pictures of it (three at least), or take the label out"
            )


def split_stage(params: Params, root: Path) -> None:
    """Read stages/fetch, write stages/split: three manifests and the counts."""
    manifest = coco.read(root / "stages/fetch/annotations.json")
    if not manifest.images:
        raise UserError("stages/fetch/annotations.json: no pictures in it; look at fetch.sources in params.yaml")
    bits = params.split.near_duplicate_bits
    ids = [image.id for image in manifest.images]
    same: dict[str, int] = {}
    identical = [(same[i.sha256], i.id) for i in manifest.images if same.setdefault(i.sha256, i.id) != i.id]
    hashes = (
        pool.each(lambda image: _hash(root / image.file_name), manifest.images, "hash pictures") if bits >= 0 else []
    )
    near = [(ids[a], ids[b]) for a, b in find_twins(hashes, bits)]
    detect = params.task != "classify"
    assigned = split(manifest, params.split, params.seed, [*identical, *near], detect=detect)
    out = root / "stages/split"
    for name, part in assigned.splits.items():
        coco.write(part, out / f"{name}.json")
    exact = {frozenset(pair) for pair in identical}
    fresh = sum(frozenset(pair) not in exact for pair in near)
    write_json(out / "metrics.json", _metrics(assigned, len(identical), fresh, detect=detect))
    sizes = ", ".join(f"{len(part.images):,} {name}" for name, part in assigned.splits.items())
    print(
        f"split: {sizes}; kept together: {len(identical):,} identical pictures and {fresh:,} near-identical pairs"
        + (f"; left out: {len(assigned.dropped):,} that a later split has too" if assigned.dropped else "")
    )


def _hash(path: Path) -> Hash:
    with Pillow.open(path) as picture:
        return fingerprint(picture)


def _metrics(assigned: Assignment, identical: int, near: int, *, detect: bool) -> dict[str, object]:
    counts: dict[str, object] = {}
    for name, part in assigned.splits.items():
        labels = shown(part, detect=detect).values()
        pictures = {f"label.{label}": sum(label in some for some in labels) for label in part.labels()}
        if detect:
            pictures |= {"background": sum(not some for some in labels), "boxes": len(part.annotations)}
        counts[name] = {"pictures": len(part.images)} | pictures
    return {**counts, "identical_pictures": identical, "near_duplicate_pairs": near, "dropped": len(assigned.dropped)}
