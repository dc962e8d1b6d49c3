"""train, val and test: stratified, seeded, and no picture in two of them."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from headstart import coco, pool
from headstart.coco import Image, Manifest
from headstart.errors import UserError
from headstart.files import write_json
from headstart.params import SPLITS, Params, Split, SplitParams

Hash = npt.NDArray[np.bool_]
ROWS = 512  # hashes compared with all others at once; bounds the memory


@dataclass(frozen=True)
class Unit:
    """Pictures that stay together: one group, or what looks the same."""

    images: tuple[Image, ...]
    label: str
    pin: Split | None


@dataclass(frozen=True)
class Assignment:
    """Who goes where, and what was left out because the same picture is pinned in a later split."""

    splits: Mapping[Split, Manifest]
    dropped: tuple[Image, ...]


def split(manifest: Manifest, params: SplitParams, seed: int, twins: Iterable[tuple[int, int]]) -> Assignment:
    """Give every picture its split.

    Pinned pictures stay where their source put them. Pictures of one `group`, and twins (pairs of ids of identical or
    near-identical pictures), go to one split as one unit. Units are dealt label by label, largest first and otherwise
    by the seed, each to the split that lacks most of its share.

    Raises:
        UserError: a label has too few pictures for the splits asked for.
    """
    units, dropped = _units(manifest.images, twins)
    chosen: dict[Split, list[Image]] = {name: [] for name in SPLITS}
    for unit in units:
        if unit.pin:
            chosen[unit.pin] += unit.images
    shares: dict[Split, float] = {"train": params.train, "val": params.val, "test": params.test}
    by_label: dict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        if not unit.pin:
            by_label[unit.label].append(unit)
    for label in sorted(by_label):
        _deal(by_label[label], shares, chosen, random.Random(f"{seed} {label}"))  # noqa: S311 (not a secret)
    _check(manifest, chosen, shares)
    parts = {name: manifest.only(sorted(some, key=lambda image: image.id)) for name, some in chosen.items()}
    return Assignment(parts, tuple(dropped))


def _units(images: Sequence[Image], twins: Iterable[tuple[int, int]]) -> tuple[list[Unit], list[Image]]:
    place = {image.id: index for index, image in enumerate(images)}
    links = [(place[a], place[b]) for a, b in twins]
    first: dict[tuple[str, str], int] = {}
    for index, image in enumerate(images):
        if image.group is not None:
            links.append((first.setdefault((image.source, image.group), index), index))
    rows, columns = (list(side) for side in zip(*links, strict=True)) if links else ([], [])
    graph = coo_array((np.ones(len(links)), (rows, columns)), shape=(len(images), len(images)))
    _, member_of = connected_components(graph, directed=False)
    members: dict[int, list[Image]] = defaultdict(list)
    for image, number in zip(images, member_of, strict=True):
        members[number].append(image)
    units: list[Unit] = []
    dropped: list[Image] = []
    for some in members.values():
        # Two pins in one unit: the later split keeps its pictures, since an exam that was seen is no exam.
        pins = [pin for pin in reversed(SPLITS) if any(image.split == pin for image in some)]
        pin = pins[0] if pins else None
        kept = [image for image in some if len(pins) < 2 or image.split in (None, pin)]
        dropped += [image for image in some if image not in kept]
        label = Counter(image.label or "" for image in kept).most_common(1)[0][0]
        units.append(Unit(tuple(kept), label, pin))
    return units, dropped


def _deal(
    units: list[Unit], shares: Mapping[Split, float], chosen: dict[Split, list[Image]], rng: random.Random
) -> None:
    total = sum(len(unit.images) for unit in units)
    lacking = {name: share * total for name, share in shares.items() if share > 0}
    rng.shuffle(units)
    units.sort(key=lambda unit: -len(unit.images))  # stable: equal sizes stay shuffled
    empty = [name for name in lacking if not chosen[name] or not _has(chosen[name], units[0].label)]
    for number, unit in enumerate(units):
        left = len(units) - number
        # The last units go to splits that would else have none of this label: a tenth of five pictures is still one.
        open_to = empty if 0 < len(empty) >= left else list(lacking)
        target = max(open_to, key=lambda name: (lacking[name], shares[name]))
        chosen[target] += unit.images
        lacking[target] -= len(unit.images)
        if target in empty:
            empty.remove(target)


def _has(images: Iterable[Image], label: str) -> bool:
    return any(image.label == label for image in images)


def _check(manifest: Manifest, chosen: Mapping[Split, Sequence[Image]], shares: Mapping[Split, float]) -> None:
    labels = sorted({image.label for image in manifest.images if image.label is not None})
    for name in SPLITS:
        present = {image.label for image in chosen[name]}
        for label in labels:
            if label in present or (name == "test" and shares[name] == 0 and chosen[name]):
                continue
            count = sum(image.label == label for image in manifest.images)
            raise UserError(
                f"params.yaml: fetch.sources: label {label!r} has {count} picture{'s' if count != 1 else ''}, none is "
                f"left for {name}; add different pictures of it (three at least), or take the label out"
            )


def find_twins(hashes: Sequence[Hash], bits: int) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, whose hashes differ in at most `bits` bits; none when bits is negative."""
    if not hashes or bits < 0:
        return []
    table = np.stack([np.asarray(h).reshape(-1) for h in hashes]).astype(np.float32)
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(table), ROWS):
        part = table[start : start + ROWS]
        # Hamming distance as matrix products: ones of one where the other has zeros, both ways.
        distance = part @ (1 - table).T + (1 - part) @ table.T
        rows, columns = np.nonzero(distance <= bits + 0.5)
        pairs += [
            (int(row) + start, int(column)) for row, column in zip(rows, columns, strict=True) if row + start < column
        ]
    return pairs


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
    assigned = split(manifest, params.split, params.seed, [*identical, *near])
    out = root / "stages/split"
    for name, part in assigned.splits.items():
        coco.write(part, out / f"{name}.json")
    exact = {frozenset(pair) for pair in identical}
    write_json(out / "metrics.json", _metrics(assigned, len(identical), sum(frozenset(p) not in exact for p in near)))


def _hash(path: Path) -> Hash:
    with Pillow.open(path) as picture:
        picture.draft("L", (256, 256))
        found: Hash = imagehash.phash(picture.convert("L")).hash
        return found


def _metrics(assigned: Assignment, identical: int, near: int) -> dict[str, object]:
    counts: dict[str, object] = {
        name: {"pictures": len(part.images)}
        | {f"label.{label}": sum(i.label == label for i in part.images) for label in part.labels()}
        for name, part in assigned.splits.items()
    }
    return {**counts, "identical_pictures": identical, "near_duplicate_pairs": near, "dropped": len(assigned.dropped)}
