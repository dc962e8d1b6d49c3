"""All sources of `fetch.sources` read into one list, with the options that hold for every kind."""

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from headstart.base.errors import UserError, list_some
from headstart.base.manifest import SPLITS
from headstart.fetch.sources import (
    coco,
    cvat,
    folder,
    label_studio,
    labelme,
    mosaic,
    open_images,
    stanford_dogs,
    table,
    via,
    voc,
    yolo,
)
from headstart.fetch.sources.labels import normalize_labels, note_similar_labels
from headstart.fetch.sources.records import Rejection, SourceImage, hash_key
from headstart.params.fetch import DownloadParams, FetchParams, SourceParams


def collect_images(params: FetchParams, root: Path, *, boxes: bool = False) -> list[SourceImage | Rejection]:
    """All pictures of all sources, in the order of the sources; the same list for the same params and data.

    Args:
        params: the section `fetch`.
        root: the repository root; paths in params are relative to it.
        boxes: the task learns from boxes; else from one label a picture.

    Raises:
        UserError: a source that is missing, empty or invalid.
    """
    collected: list[SourceImage | Rejection] = []
    for number, source in enumerate(params.sources):
        try:
            items = list(_list_source(source, root, params.downloads, boxes=boxes))
            if boxes:
                items = reject_unboxed(items)
            collected += _apply_options(source, items, root)
        except UserError as error:
            raise UserError(f"params.yaml: fetch.sources.{number}: {error}") from None
    normalized = normalize_labels(collected)
    note_similar_labels(collected, normalized)
    _note_missing_splits([item for item in normalized if isinstance(item, SourceImage)])
    return normalized


def _list_source(
    source: SourceParams, root: Path, downloads: DownloadParams, *, boxes: bool
) -> Iterator[SourceImage | Rejection]:
    label_given = source.label is not None
    if source.folder is not None:
        return folder.list_images(source.folder, root, label_given=label_given)
    if source.table is not None:
        more = {"group_by": source.group_by, "confidence": source.confidence}
        return table.list_images(source.table, root, label_given=label_given, boxes=boxes, **more)
    if source.open_images is not None:
        return open_images.list_images(source.open_images, downloads, boxes=boxes)
    if source.stanford_dogs is not None:
        return stanford_dogs.list_images(source.stanford_dogs, downloads)
    if source.mosaic is not None:
        return mosaic.list_images(source.mosaic, root, group_by=source.group_by)
    return _list_annotated(source, root, label_given=label_given)


def _list_annotated(source: SourceParams, root: Path, *, label_given: bool) -> Iterator[SourceImage | Rejection]:
    """The kinds that are an annotation tool's export beside a folder of pictures."""
    items: Iterator[SourceImage | Rejection]
    if source.coco is not None:
        items = coco.list_images(source.coco, root)
    elif source.voc is not None:
        items = voc.list_images(source.voc, root)
    elif source.yolo is not None:
        items = yolo.list_images(source.yolo, root)
    elif source.cvat is not None:
        items = cvat.list_images(source.cvat, root)
    elif source.label_studio is not None:
        items = label_studio.list_images(source.label_studio, root)
    elif source.labelme is not None:
        items = labelme.list_images(source.labelme, root)
    elif source.via is not None:
        items = via.list_images(source.via, root, label_given=label_given)
    else:
        raise AssertionError(f"no source lists images of kind {source.kinds()}")
    return items


def reject_unboxed(items: list[SourceImage | Rejection]) -> list[SourceImage | Rejection]:
    """For a detector: a picture with a label and no box is neither an example with boxes nor background.

    Raises:
        UserError: that holds for all pictures of the source.
    """

    def is_unboxed(item: SourceImage | Rejection) -> bool:
        return isinstance(item, SourceImage) and item.label is not None and not item.boxes

    pictures = [item for item in items if isinstance(item, SourceImage)]
    if pictures and all(is_unboxed(picture) for picture in pictures):
        raise UserError(
            f"{pictures[0].source}: labels but no boxes, and `task: detect` needs boxes; name a source that has them "
            "(coco, voc, yolo, cvat, label_studio, labelme, via, or a table with xmin, ymin, xmax, ymax), or set "
            "`task: classify`"
        )
    reason = "labelled {!r}, but without a box: draw it, or leave the label out if the picture is background"
    return [
        Rejection(item.source, item.location, "no_box", reason.format(item.label))
        if isinstance(item, SourceImage) and is_unboxed(item)
        else item
        for item in items
    ]


def _apply_options(
    source: SourceParams, items: list[SourceImage | Rejection], root: Path
) -> list[SourceImage | Rejection]:
    """The options for all pictures of a source: label, split, min_side, group_by, limit."""
    rejections = [item for item in items if isinstance(item, Rejection)]
    pictures = [_apply_overrides(item, source) for item in items if isinstance(item, SourceImage)]
    is_column = source.table is not None and source.group_by in table.read_columns(source.table, root)
    # A row with an empty cell of the column is of no group.
    if source.group_by not in (None, table.NO_GROUPS) and not is_column:
        pictures = _set_groups(pictures, source.group_by)
    if source.limit is not None and len(pictures) > source.limit:
        # Not the first ones, which would be of one class: a fixed random subset, the same on every machine.
        subset = set(sorted(pictures, key=lambda picture: hash_key(picture.location))[: source.limit])
        pictures = [picture for picture in pictures if picture in subset]
    return [*pictures, *rejections]


def _apply_overrides(picture: SourceImage, source: SourceParams) -> SourceImage:
    boxes = tuple(replace(box, label=source.label or box.label) for box in picture.boxes)
    return replace(
        picture,
        label=source.label or picture.label,
        boxes=boxes,
        split=source.split or picture.split,
        min_side=source.min_side,
    )


def _set_groups(pictures: list[SourceImage], group_by: str) -> list[SourceImage]:
    """Group pictures by the expression's first group in their file names; a name that does not match has no group.

    Raises:
        UserError: it is no expression with a group, it matches no name, or the table has groups of its own.
    """
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise UserError(f"group_by: {group_by!r} is not a regular expression ({error}); correct it") from None
    if pattern.groups == 0:
        raise UserError(f"group_by: {group_by!r} names no column and has no (group); write for example '(.+)_\\d+'")
    if any(picture.group for picture in pictures):
        raise UserError(f"group_by: {group_by!r}: the table has a column `group` as well; take out one of the two")
    matches = [pattern.search(PurePosixPath(picture.location).name) for picture in pictures]
    unmatched = [picture.location for picture, match in zip(pictures, matches, strict=True) if not match]
    if pictures and not any(matches):
        raise UserError(f"group_by: {group_by!r} matches no file name, such as {pictures[0].location!r}; correct it")
    if unmatched:
        print(f"fetch: group_by: {group_by!r} does not match {list_some(unmatched, 3)}: in no group", file=sys.stderr)
    return [
        replace(picture, group=match.group(1) if match else None)
        for picture, match in zip(pictures, matches, strict=True)
    ]


def _note_missing_splits(pictures: list[SourceImage]) -> None:
    """One line on stderr where all pictures are pinned and val or test gets none: train's share is divided."""
    pinned = {picture.split for picture in pictures}
    missing = [split for split in SPLITS if split not in pinned]
    if missing and "train" in pinned and None not in pinned:
        has = ", ".join(split for split in SPLITS if split in pinned)
        print(
            f"fetch: all pictures are pinned to {has}, none to {' or '.join(missing)}: the split stage takes "
            f"{' and '.join(missing)} from train",
            file=sys.stderr,
        )
