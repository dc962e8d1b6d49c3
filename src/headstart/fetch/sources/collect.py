"""All sources of `fetch.sources` read into one list, with the options that hold for every kind."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from headstart.base.errors import UserError
from headstart.fetch.sources import coco, folder, mosaic, open_images, stanford_dogs, table, voc, yolo
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
            collected += _apply_options(source, items)
        except UserError as error:
            raise UserError(f"params.yaml: fetch.sources.{number}: {error}") from None
    return collected


def _list_source(
    source: SourceParams, root: Path, downloads: DownloadParams, *, boxes: bool
) -> Iterator[SourceImage | Rejection]:
    items: Iterator[SourceImage | Rejection]
    label_given = source.label is not None
    if source.folder is not None:
        items = folder.list_images(source.folder, root, label_given=label_given)
    elif source.table is not None:
        items = table.list_images(source.table, root, label_given=label_given, group_by=source.group_by, boxes=boxes)
    elif source.open_images is not None:
        items = open_images.list_images(source.open_images, downloads, boxes=boxes)
    elif source.stanford_dogs is not None:
        items = stanford_dogs.list_images(source.stanford_dogs, downloads)
    elif source.coco is not None:
        items = coco.list_images(source.coco, root)
    elif source.voc is not None:
        items = voc.list_images(source.voc, root)
    elif source.yolo is not None:
        items = yolo.list_images(source.yolo, root)
    elif source.mosaic is not None:
        items = mosaic.list_images(source.mosaic, root)
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
            "(coco, voc, yolo, or a table with xmin, ymin, xmax, ymax), or set `task: classify`"
        )
    reason = "labelled {!r}, but without a box: draw it, or leave the label out if the picture is background"
    return [
        Rejection(item.source, item.location, "no_box", reason.format(item.label))
        if isinstance(item, SourceImage) and is_unboxed(item)
        else item
        for item in items
    ]


def _apply_options(source: SourceParams, items: list[SourceImage | Rejection]) -> list[SourceImage | Rejection]:
    """The options for all pictures of a source: label, split, min_side, group_by, limit."""
    rejections = [item for item in items if isinstance(item, Rejection)]
    pictures = [_apply_overrides(item, source) for item in items if isinstance(item, SourceImage)]
    if source.group_by is not None and not all(picture.group for picture in pictures):
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
    """Group pictures by the expression's first group in their file names; a name that does not match has no group."""
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise UserError(f"group_by: {group_by!r} is not a regular expression ({error}); correct it") from None
    if pattern.groups == 0:
        raise UserError(f"group_by: {group_by!r} names no column and has no (group); write for example '(.+)_\\d+'")
    matches = [pattern.search(PurePosixPath(picture.location).name) for picture in pictures]
    if not any(matches):
        raise UserError(f"group_by: {group_by!r} matches no file name, such as {pictures[0].location!r}; correct it")
    return [
        replace(picture, group=match.group(1) if match else None)
        for picture, match in zip(pictures, matches, strict=True)
    ]
