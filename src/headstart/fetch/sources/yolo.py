"""Source `yolo`: for each picture a text file with one line `class x y width height` for each box, in its dialects."""

from collections.abc import Iterator
from pathlib import Path

from headstart.base.errors import UserError
from headstart.fetch.sources.records import LocalFile, Rejection, SourceBox, SourceImage, unique_label
from headstart.fetch.sources.yolo_dialect import Evidence
from headstart.fetch.sources.yolo_labels import YoloPicture, holds_rows
from headstart.fetch.sources.yolo_layout import YoloSet, display, read_set
from headstart.fetch.sources.yolo_rows import Dialect, box_of, read_rows
from headstart.params.fetch import YoloParams


def list_images(params: YoloParams, root: Path) -> Iterator[SourceImage | Rejection]:
    """Every picture of the set, sorted by path, with the boxes of its text file; without one it is background.

    Boxes are fractions of the upright picture, by their centre; an outline or an oriented box becomes the box round
    it, and of a box with keypoints the box is used. Splits are pinned by data.yaml, or by folders train, val and test.

    Raises:
        UserError: a folder or the file of names is missing, there is no picture, no picture has a label file, a line
            has a class without name, or the rows can be read in two ways.
    """
    found = read_set(params, root)
    _check_labels(found, root)
    evidence = _gather_evidence(found, root)
    try:
        dialect = evidence.decide(params.task or found.config.task, found.config.keypoints)
    except UserError as error:
        raise UserError(f"{found.key}: {error}") from None
    fix = "the classes seem to count from 1, and YOLO counts from 0: subtract 1, or name class 0 too"
    fix = fix if evidence.counts_from_one(found.config.names) else "add it"
    for picture in found.pictures:
        location = display(picture.path, root)
        try:
            boxes = _read_boxes(picture, found, dialect, root, fix)
        except ValueError as error:
            yield Rejection(found.source, location, "annotation", str(error))
            continue
        content = LocalFile(picture.path)
        label = unique_label(boxes)
        yield SourceImage(location, found.source, content, label, picture.split, boxes=boxes, frame=(1.0, 1.0))
    for path in found.unused:
        if holds_rows(path):
            yield Rejection(found.source, display(path, root), "missing", "no picture for these labels")
        else:
            yield Rejection(found.source, display(path, root), "other_file", "not a label file", ignored=True)
    for entry in found.missing:
        yield Rejection(found.source, found.config_file, "missing", f"{entry}: no such folder", ignored=True)


def _check_labels(found: YoloSet, root: Path) -> None:
    """Raise UserError where no picture has a label file: they lie elsewhere, or are named otherwise."""
    if any(picture.labels for picture in found.pictures):
        return
    first = found.pictures[0]
    expected = display(first.folders[0] / f"{first.path.stem}.txt", root)
    count = f"{len(found.pictures):,} pictures" if len(found.pictures) > 1 else "the picture"
    raise UserError(
        f"{found.key}: no label file for {count} of {found.source}: {expected} is expected for "
        f"{display(first.path, root)}; put it there, or an empty file if the picture is background"
    )


def _gather_evidence(found: YoloSet, root: Path) -> Evidence:
    """What the rows of all label files show; a file that cannot be read rejects its picture later."""
    evidence = Evidence()
    for picture in found.pictures:
        for path in picture.labels:
            try:
                rows = read_rows(path)
            except ValueError:
                continue
            for row in rows:
                evidence.add(row, f"{display(path, root)}: line {row.line}")
    return evidence


def _read_boxes(picture: YoloPicture, found: YoloSet, dialect: Dialect, root: Path, fix: str) -> tuple[SourceBox, ...]:
    """The boxes of a picture, repeated ones once; none if it has no label file.

    Raises:
        UserError: a class has no name, and `fix` is what to do.
        ValueError: a line is not a box, or it is not clear which label file is the picture's.
    """
    if len(picture.labels) > 1:
        names = " and ".join(display(path, root) for path in picture.labels)
        raise ValueError(f"two label files: {names}; take one out")
    if picture.astray:
        name = display(picture.astray[0], root)
        raise ValueError(f"no label file at its own place, and {name} of its name belongs to no picture; move that")
    boxes = []
    for path in picture.labels:
        place = display(path, root)
        try:
            rows = read_rows(path)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        if rows and picture.sharing:
            raise ValueError(f"{place}: is the label file of {display(picture.sharing[0], root)} too; rename one")
        for row in rows:
            where = f"{place}: line {row.line}"
            label = found.config.names.get(row.label)
            if label is None:
                has = f"{found.config_file} has {len(found.config.names)} names"
                raise UserError(f"{found.key}: {where}: class {row.label} has no name; {has}: {fix}")
            try:
                corners = box_of(row, dialect)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            boxes.append(SourceBox(label, *corners, where=where))
    return tuple(dict.fromkeys(boxes))
