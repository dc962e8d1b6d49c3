"""The split stage: train, val and test manifests; near-duplicates are found by perceptual hashes."""

from pathlib import Path

from headstart.base.errors import UserError
from headstart.base.files import write_json
from headstart.base.manifest import Image, read_manifest, write_manifest
from headstart.base.parallel import parallel_map
from headstart.base.stored_picture import open_stored_picture
from headstart.images.near_duplicates import PerceptualHash, find_near_duplicates, perceptual_hash
from headstart.params.root import Params
from headstart.split.assign import SplitAssignment, assign_splits
from headstart.split.groups import label_sets


def split(params: Params, root: Path, *, boxes: bool) -> None:
    """Read stages/fetch, write stages/split: three manifests and the counts.

    Args:
        params: all of params.yaml.
        root: the repository root.
        boxes: the task learns from boxes; else from one label a picture.

    Raises:
        UserError: there are no pictures, one cannot be read, or too few of a label for the splits asked for.
    """
    manifest = read_manifest(root / "stages/fetch/annotations.json")
    if not manifest.images:
        raise UserError("stages/fetch/annotations.json: no pictures in it; look at fetch.sources in params.yaml")
    identical = _identical_pairs(manifest.images)
    near = _near_duplicate_pairs(manifest.images, params.split.near_duplicate_bits, root)
    assigned = assign_splits(manifest, params.split, params.seed, [*identical, *near], boxes=boxes)
    out = root / "stages/split"
    for name, part in assigned.splits.items():
        write_manifest(part, out / f"{name}.json")
    exact = {frozenset(pair) for pair in identical}
    only_near = sum(frozenset(pair) not in exact for pair in near)
    write_json(out / "metrics.json", _split_metrics(assigned, len(identical), only_near, boxes=boxes))
    train = len(assigned.splits["train"].images) + sum(assigned.from_train.values())
    for name, count in assigned.from_train.items():
        print(f"split: no {name} pictures in the sources: {count:,} of train's {train:,} were dealt to {name}")
    sizes = ", ".join(f"{len(part.images):,} {name}" for name, part in assigned.splits.items())
    print(
        f"split: {sizes}; kept together: {len(identical):,} identical pictures and {only_near:,} near-identical pairs"
        + (f"; left out: {len(assigned.dropped):,} that a later split has too" if assigned.dropped else "")
    )


def _identical_pairs(images: tuple[Image, ...]) -> list[tuple[int, int]]:
    """Ids of each picture with the same bytes as an earlier one, after the id of the first of them."""
    first: dict[str, int] = {}
    return [(first[image.sha256], image.id) for image in images if first.setdefault(image.sha256, image.id) != image.id]


def _near_duplicate_pairs(images: tuple[Image, ...], bits: int, root: Path) -> list[tuple[int, int]]:
    """Pairs of ids of near-duplicates; none when `bits` is negative."""
    if bits < 0:
        return []
    hashes = parallel_map(lambda image: _hash_file(root / image.file_name), images, "hash pictures")
    return [(images[a].id, images[b].id) for a, b in find_near_duplicates(hashes, bits)]


def _hash_file(path: Path) -> PerceptualHash:
    with open_stored_picture(path) as picture:
        return perceptual_hash(picture)


def _split_metrics(assigned: SplitAssignment, identical: int, near: int, *, boxes: bool) -> dict[str, object]:
    counts: dict[str, object] = {}
    for name, part in assigned.splits.items():
        labels = label_sets(part, boxes=boxes).values()
        pictures = {f"label.{label}": sum(label in names for names in labels) for label in part.labels()}
        if boxes:
            pictures |= {"background": sum(not names for names in labels), "boxes": len(part.annotations)}
        dealt = {"from_train": assigned.from_train[name]} if name in assigned.from_train else {}
        counts[name] = {"pictures": len(part.images)} | pictures | dealt
    return {**counts, "identical_pictures": identical, "near_duplicate_pairs": near, "dropped": len(assigned.dropped)}
