"""The split stage: train, val and test manifests; near-duplicates are found by perceptual hashes and fingerprints."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from headstart.base.errors import UserError
from headstart.base.files import write_json
from headstart.base.manifest import Image, Manifest, Split, read_manifest, write_manifest
from headstart.base.units import unit_numbers
from headstart.metrics.intervals import FEW_UNITS
from headstart.params.root import Params
from headstart.split.assign import SplitAssignment, assign_splits
from headstart.split.contact_sheet import write_contact_sheet
from headstart.split.duplicate_search import search_near_duplicates
from headstart.split.groups import label_sets
from headstart.split.leaks import Leak, find_leaks


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
    search = search_near_duplicates(manifest.images, params.split.near_duplicate_bits, root)
    near = [(pair.first.id, pair.second.id) for pair in search.pairs]
    assigned = assign_splits(manifest, params.split, params.seed, [*identical, *near], boxes=boxes)
    leaks = _check_leaks(manifest, assigned, boxes=boxes)
    out = root / "stages/split"
    for name, part in assigned.splits.items():
        write_manifest(part, out / f"{name}.json")
    write_contact_sheet(search, root, out / "near-duplicates.jpg")
    counts = _split_metrics(assigned, len(identical), len(near), boxes=boxes)
    write_json(out / "metrics.json", counts | {"leaks": [asdict(leak) for leak in leaks]})
    train = len(assigned.splits["train"].images) + sum(assigned.from_train.values())
    for name, count in assigned.from_train.items():
        print(f"split: no {name} pictures in the sources: {count:,} of train's {train:,} were dealt to {name}")
    sizes = ", ".join(f"{len(part.images):,} {name}" for name, part in assigned.splits.items())
    print(
        f"split: {sizes}; kept together: {len(identical):,} identical pictures and {len(near):,} near-duplicate pairs"
        + (f"; left out: {len(assigned.dropped):,} that a later split has too" if assigned.dropped else "")
    )
    for sentence in [*_few_units(assigned.splits, boxes=boxes), *(leak.line for leak in leaks if leak.line)]:
        print(f"split: {sentence}")


def _identical_pairs(images: tuple[Image, ...]) -> list[tuple[int, int]]:
    """Ids of each picture with the same bytes as an earlier one, after the id of the first of them."""
    first: dict[str, int] = {}
    return [(first[image.sha256], image.id) for image in images if first.setdefault(image.sha256, image.id) != image.id]


def _few_units(splits: Mapping[Split, Manifest], *, boxes: bool) -> list[str]:
    """A sentence about val and test if they have many pictures of few units; only classifiers are cross-validated."""
    few = []
    for name in ("test", "val"):
        pictures, units = len(splits[name].images), _count_units(splits[name])
        if units < FEW_UNITS and pictures >= 2 * units > 0:
            few.append(f"{name} has {pictures:,} pictures but only {units} independent group{'s' if units > 1 else ''}")
    if not few:
        return []
    pinned = any(image.split == "test" for image in splits["test"].images)
    folds = f"; evaluate.folds examines every group{' that is not pinned to test' if pinned else ''}"
    whose = "its" if len(few) == 1 else "their"
    return [f"{', '.join(few)}: {whose} figures will say little{'' if boxes else folds}"]


def _count_units(part: Manifest) -> int:
    return len(set(unit_numbers(part.images).tolist()))


def _check_leaks(manifest: Manifest, assigned: SplitAssignment, *, boxes: bool) -> list[Leak]:
    """The checks on all pictures that are in a split; a detector's label is the set of labels that a picture shows."""
    labels = label_sets(manifest, boxes=boxes)
    images = [image for part in assigned.splits.values() for image in part.images]
    return find_leaks(images, [", ".join(sorted(labels[image.id])) for image in images])


def _split_metrics(assigned: SplitAssignment, identical: int, near: int, *, boxes: bool) -> dict[str, object]:
    counts: dict[str, object] = {}
    for name, part in assigned.splits.items():
        labels = label_sets(part, boxes=boxes).values()
        pictures = {f"label.{label}": sum(label in names for names in labels) for label in part.labels()}
        if boxes:
            pictures |= {"background": sum(not names for names in labels), "boxes": len(part.annotations)}
        dealt = {"from_train": assigned.from_train[name]} if name in assigned.from_train else {}
        counts[name] = {"pictures": len(part.images), "units": _count_units(part)} | pictures | dealt
    return {**counts, "identical_pictures": identical, "near_duplicate_pairs": near, "dropped": len(assigned.dropped)}
