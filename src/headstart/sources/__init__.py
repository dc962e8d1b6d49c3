"""Where pictures come from: one module per kind of source, each an iterator of pictures wanted."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from headstart.errors import UserError
from headstart.fetch_params import DownloadParams, FetchParams, SourceParams
from headstart.sources import coco, folder, mosaic, open_images, stanford_dogs, table, voc, yolo
from headstart.sources.wanted import Box, Failed, Local, Remote, Wanted

__all__ = ["Box", "Failed", "Local", "Remote", "Wanted", "collect"]


def collect(params: FetchParams, root: Path, *, detect: bool = False) -> list[Wanted | Failed]:
    """All pictures that all sources name, in the order of the sources; the same list for the same params and data.

    Args:
        params: the section `fetch`.
        root: the repository root; paths in params are relative to it.
        detect: boxes are wanted rather than labels, where a source has to choose.

    Raises:
        UserError: a source that is not there, is empty or is not in order.
    """
    found: list[Wanted | Failed] = []
    for number, source in enumerate(params.sources):
        try:
            its = list(_of_kind(source, root, params.downloads, detect=detect))
            if detect:
                its = with_boxes(its)
            found += _options(source, its)
        except UserError as error:
            raise UserError(f"params.yaml: fetch.sources.{number}: {error}") from None
    return found


def _of_kind(source: SourceParams, root: Path, downloads: DownloadParams, *, detect: bool) -> Iterator[Wanted | Failed]:
    found: Iterator[Wanted | Failed] = iter(())
    any_label = source.label is not None
    if source.folder is not None:
        found = folder.wanted(source.folder, root, any_label=any_label)
    elif source.table is not None:
        found = table.wanted(source.table, root, any_label=any_label, group_by=source.group_by, detect=detect)
    elif source.open_images is not None:
        found = open_images.wanted(source.open_images, downloads, detect=detect)
    elif source.stanford_dogs is not None:
        found = stanford_dogs.wanted(source.stanford_dogs, downloads)
    elif source.coco is not None:
        found = coco.wanted(source.coco, root)
    elif source.voc is not None:
        found = voc.wanted(source.voc, root)
    elif source.yolo is not None:
        found = yolo.wanted(source.yolo, root)
    elif source.mosaic is not None:
        found = mosaic.wanted(source.mosaic, root)
    return found


def with_boxes(found: list[Wanted | Failed]) -> list[Wanted | Failed]:
    """For a detector: what has a label and no box is no background, and cannot be learned from either.

    Raises:
        UserError: that holds for all pictures of the source.
    """
    pictures = [item for item in found if isinstance(item, Wanted)]
    bare = [item for item in pictures if item.label is not None and not item.boxes]
    if bare and len(bare) == len(pictures):
        raise UserError(
            f"{bare[0].source}: labels but no boxes, and `task: detect` needs boxes; name a source that has them "
            "(coco, voc, yolo, or a table with xmin, ymin, xmax, ymax), or set `task: classify`"
        )
    reason = "labelled {!r}, but without a box: draw it, or leave the label out if the picture is background"
    return [
        Failed(item.source, item.location, "no_box", reason.format(item.label))
        if isinstance(item, Wanted) and item.label is not None and not item.boxes
        else item
        for item in found
    ]


def _options(source: SourceParams, found: list[Wanted | Failed]) -> list[Wanted | Failed]:
    """What holds for all pictures of a source: label, split, min_side, group_by, limit."""
    failed = [item for item in found if isinstance(item, Failed)]
    pictures = [_pinned(item, source) for item in found if isinstance(item, Wanted)]
    if source.group_by is not None and not all(picture.group for picture in pictures):
        pictures = _grouped(pictures, source.group_by)
    if source.limit is not None and len(pictures) > source.limit:
        # Not the first ones, which would be of one class: a fixed draw, the same on every machine.
        drawn = sorted(pictures, key=lambda picture: hashlib.sha256(picture.location.encode()).digest())
        kept = set(drawn[: source.limit])
        pictures = [picture for picture in pictures if picture in kept]
    return [*pictures, *failed]


def _pinned(picture: Wanted, source: SourceParams) -> Wanted:
    boxes = tuple(replace(box, label=source.label or box.label) for box in picture.boxes)
    return replace(
        picture,
        label=source.label or picture.label,
        boxes=boxes,
        split=source.split or picture.split,
        min_side=source.min_side,
    )


def _grouped(pictures: list[Wanted], group_by: str) -> list[Wanted]:
    """Pictures of one value of the expression's first group stay in one split; a name that does not match is alone."""
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise UserError(f"group_by: {group_by!r} is no regular expression ({error})") from None
    if pattern.groups == 0:
        raise UserError(f"group_by: {group_by!r} names no column and has no (group); write for example '(.+)_\\d+'")
    matches = [pattern.search(PurePosixPath(picture.location).name) for picture in pictures]
    if not any(matches):
        raise UserError(f"group_by: {group_by!r} matches no file name, such as {pictures[0].location!r}; mend it")
    return [
        replace(picture, group=match.group(1) if match else None)
        for picture, match in zip(pictures, matches, strict=True)
    ]
