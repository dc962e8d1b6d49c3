"""Source `open_images`: pictures of named classes of Open Images V7, with boxes or with labels that people verified.

The tables and their columns are in open_images_tables.py; this module selects the pictures.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from headstart.base.errors import UserError
from headstart.fetch.http.addresses import is_remote, local_path
from headstart.fetch.sources import open_images_tables as tables
from headstart.fetch.sources.open_images_tables import ClassHierarchy, ImageInfo
from headstart.fetch.sources.records import LocalFile, RemoteFile, SourceBox, SourceImage, hash_key, unique_label
from headstart.params.fetch import DownloadParams, OpenImagesParams


@dataclass(slots=True)
class VerifiedLabels:
    """The rows about one picture in the tables of its split, by the names of the requested classes.

    There may be a million of these (`Person`), so empty values are shared.

    Attributes:
        present: requested classes verified as present, by a label or a box.
        absent: requested classes verified as absent.
        other_classes: classes of `negatives.from` verified as present.
        boxes: boxes of the requested classes.
        passes_filters: whether all boxes pass the filters.
    """

    present: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    other_classes: frozenset[str] = frozenset()
    boxes: tuple[SourceBox, ...] = ()
    passes_filters: bool = True

    def candidate_classes(self, *, by_boxes: bool) -> frozenset[str]:
        """The classes that the picture can be selected for."""
        if by_boxes:
            return frozenset(box.label for box in self.boxes) if self.passes_filters else frozenset()
        return self.present


@dataclass(frozen=True)
class SelectedImage:
    """A selected picture: for one of the classes, or as a negative (`class_name` is None)."""

    split: str
    image_id: str
    labels: VerifiedLabels
    class_name: str | None


LabelsBySplit = list[tuple[str, dict[str, VerifiedLabels]]]


def list_images(params: OpenImagesParams, downloads: DownloadParams, *, boxes: bool) -> Iterator[SourceImage]:
    """The selected pictures, sorted by split and id.

    If the task learns from `boxes`, pictures with boxes of the classes; else pictures on which people verified one of
    the classes and no other of them. The selection depends on the tables and on params alone: pictures are taken in
    the order of the hashes of their ids, from one split after the other.

    Raises:
        UserError: a class is unknown, a table cannot be downloaded or lacks a column, or a class has no picture.
    """
    hierarchy = tables.read_hierarchy(params.metadata_url, downloads)
    names = [hierarchy.names[hierarchy.find_mid(name, "classes")] for name in params.classes]
    splits: LabelsBySplit = []
    for split in params.splits:
        splits.append((split, _read_verified_labels(split, params, downloads, hierarchy, boxes=boxes)))
        selected, counts, goals = select_images(splits, names, params, boxes=boxes)
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
        of_split = sorted((image for image in selected if image.split == split), key=lambda image: image.image_id)
        if of_split:
            ids = [image.image_id for image in of_split]
            info = tables.read_image_info(split, params.metadata_url, downloads, ids)
            for image in of_split:
                yield _to_source_image(image, info.get(image.image_id), params, boxes=boxes)


def _read_verified_labels(
    split: str, params: OpenImagesParams, downloads: DownloadParams, hierarchy: ClassHierarchy, *, boxes: bool
) -> dict[str, VerifiedLabels]:
    """The tables of a split, by image id. A table is read only if the selection depends on it."""
    requested = hierarchy.requested_classes(params.classes, "classes")
    requested_mids = {hierarchy.find_mid(name, "classes") for name in params.classes}
    others = hierarchy.requested_classes(params.negatives.from_classes if params.negatives else (), "negatives.from")
    flags = {flag: str(int(value)) for flag, value in params.box_filters().items()}
    by_boxes = boxes or bool(flags)
    by_image: dict[str, VerifiedLabels] = {}
    if by_boxes:
        for row in tables.read_boxes(split, params.metadata_url, downloads, list(requested)):
            labels, name = by_image.setdefault(row.image_id, VerifiedLabels()), requested[row.mid]
            labels.present |= {name}
            labels.boxes += (SourceBox(name, row.xmin, row.ymin, row.xmax, row.ymax, row.flags["IsGroupOf"] == "1"),)
            labels.passes_filters &= all(row.flags[flag] == value for flag, value in flags.items())
    if not by_boxes or params.negatives is not None:
        mids = [*requested, *others]
        for image_id, mid, is_present in tables.read_labels(split, params.metadata_url, downloads, mids):
            labels = by_image.setdefault(image_id, VerifiedLabels())
            if mid in others and mid not in requested and is_present:
                labels.other_classes |= {others[mid]}
            elif mid in requested and is_present:
                labels.present |= {requested[mid]}
            elif mid in requested_mids:  # that a picture shows no dog does not mean that it shows no animal
                labels.absent |= {requested[mid]}
    return by_image


def select_images(
    splits: LabelsBySplit, names: list[str], params: OpenImagesParams, *, boxes: bool
) -> tuple[list[SelectedImage], Counter[str], dict[str, int]]:
    """Select pictures by the labels of some splits.

    Returns:
        The pictures, how many there are for each class and for the label of the negatives, and how many there
        should be.
    """
    by_boxes, goal = boxes or bool(params.box_filters()), params.images_per_class
    selected: dict[str, SelectedImage] = {}
    counts: Counter[str] = Counter()
    for split, by_image in splits:
        in_order = sorted(by_image, key=hash_key)
        candidates = {image_id: by_image[image_id].candidate_classes(by_boxes=by_boxes) for image_id in in_order}
        for name in names:
            for image_id, classes in candidates.items():
                if goal is not None and counts[name] >= goal:
                    break
                if name in classes and image_id not in selected and (boxes or len(classes) == 1):
                    selected[image_id] = SelectedImage(split, image_id, by_image[image_id], name)
                    counts.update(classes)
    goals = dict.fromkeys(names, goal or 1)
    if params.negatives is None:
        return list(selected.values()), counts, goals
    default = len(selected) if goal is None else goal * len(names)
    goals[params.negatives.label] = number = params.negatives.images or default
    negatives = [image for image in _select_negatives(splits, names, params) if image.image_id not in selected][:number]
    counts[params.negatives.label] = len(negatives)
    return [*selected.values(), *negatives], counts, goals


def _select_negatives(splits: LabelsBySplit, names: list[str], params: OpenImagesParams) -> Iterator[SelectedImage]:
    """Pictures that show none of the classes: in turn one of each other class, and one verified to show none."""
    negatives = params.negatives
    assert negatives is not None
    verified = negatives.verified if negatives.verified is not None else not negatives.from_classes
    for split, by_image in splits:
        groups: dict[str, list[str]] = {}
        for image_id in sorted(by_image, key=hash_key):
            labels = by_image[image_id]
            if labels.present:
                continue
            if labels.other_classes:
                groups.setdefault(min(labels.other_classes), []).append(image_id)
            elif verified and labels.absent >= set(names):
                groups.setdefault("", []).append(image_id)
        for turn in zip_longest(*(groups[name] for name in sorted(groups))):
            yield from (SelectedImage(split, i, by_image[i], None) for i in turn if i is not None)


def _to_source_image(
    image: SelectedImage, info: ImageInfo | None, params: OpenImagesParams, *, boxes: bool
) -> SourceImage:
    url = f"{params.images_url}/{image.split}/{image.image_id}.jpg"
    class_boxes = image.labels.boxes if image.class_name is not None else ()
    negative = params.negatives.label if params.negatives is not None and not boxes else None
    return SourceImage(
        location=url,
        source=f"open_images:{image.split}",
        content=RemoteFile(url) if is_remote(url) else LocalFile(local_path(url)),
        label=unique_label(class_boxes) if boxes else image.class_name or negative,
        boxes=class_boxes,
        frame=(1.0, 1.0),
        stored_frame=True,
        rotation=info.rotation if info else None,
        license=info.license or None if info else None,
        author=info.author or None if info else None,
        landing_url=info.landing_url or None if info else None,
    )
