"""Source `yolo`: for each picture a text file, one line `class x y width height` for each box."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from headstart.base.errors import UserError
from headstart.fetch.sources.paths import (
    SPLIT_OF_FOLDER,
    has_split_folders,
    list_pictures,
    printable_path,
    read_text_file,
    require_folder,
    walk_files,
)
from headstart.fetch.sources.records import LocalFile, Rejection, SourceBox, SourceImage, unique_label
from headstart.params.fetch import YoloParams


def list_images(params: YoloParams, root: Path) -> Iterator[SourceImage | Rejection]:
    """Every picture of the folder, sorted by path, with the boxes of its text file; without one it is background.

    Boxes are fractions of the upright picture, by their centre; a polygon (as segmentation exports have it) becomes
    its bounding box. Folders train, val and test below the folder of pictures pin the splits.

    Raises:
        UserError: a folder or the file of names is missing, there is no picture, or a line has a class without name.
    """
    images = require_folder("yolo.images", params.images, root)
    labels = require_folder("yolo.labels", params.labels, root)
    names = _read_class_names(root / params.names, params.names)
    source = f"yolo:{params.labels}"
    has_splits = has_split_folders(images)
    pictures = list_pictures("yolo.images", params.images, images)
    unused = {path for path in walk_files(labels) if path.suffix == ".txt" and path != root / params.names}
    unused.discard(labels / "classes.txt")  # labelImg leaves the names among the labels
    for path in pictures:
        inside = path.relative_to(images)
        label_file = labels / inside.with_suffix(".txt")
        unused.discard(label_file)
        location = printable_path(Path(params.images) / inside)
        display_path = printable_path(Path(params.labels) / label_file.relative_to(labels))
        try:
            boxes = _read_boxes(label_file, display_path, names, params.names)
        except ValueError as error:
            yield Rejection(source, location, "annotation", str(error))
            continue
        split = SPLIT_OF_FOLDER[inside.parts[0].lower()] if has_splits else None
        yield SourceImage(location, source, LocalFile(path), unique_label(boxes), split, boxes=boxes, frame=(1.0, 1.0))
    for label_file in sorted(unused):
        location = printable_path(Path(params.labels) / label_file.relative_to(labels))
        yield Rejection(source, location, "missing", f"no picture for these labels in {params.images}")


def _read_class_names(path: Path, display_path: str) -> dict[int, str]:
    """Class number -> name: `names:` of a data.yaml (a list, or numbers with names), or one name a line."""
    where = f"yolo.names: {display_path}"
    text = read_text_file(path, where, "name data.yaml, or a text file with one class a line")
    if path.suffix.lower() not in (".yaml", ".yml"):
        return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))
    try:
        names = yaml.safe_load(text)["names"]
        numbered = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(number): str(name) for number, name in numbered}
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        raise UserError(f"{where}: no list `names:` in it; write `names: [cat, dog]`") from None


def _read_boxes(path: Path, display_path: str, names: dict[int, str], names_file: str) -> tuple[SourceBox, ...]:
    """The boxes of one text file, repeated ones once; none if there is no such file.

    Raises:
        UserError: a class has no name.
        ValueError: a line is not a box.
    """
    if not path.is_file():
        return ()
    boxes = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        cells = line.split()
        if not cells:
            continue
        where = f"{display_path}: line {number}"
        try:
            values = [float(cell) for cell in cells]
        except ValueError:
            raise ValueError(f"{where}: {line[:40]!r} is not a box: five numbers") from None
        if int(values[0]) not in names:
            fix = f"{names_file} has only {len(names)}: add it"
            raise UserError(f"yolo.labels: {where}: class {cells[0]} has no name; {fix}")
        boxes.append(_parse_box(names[int(values[0])], values[1:], where))
    return tuple(dict.fromkeys(boxes))


def _parse_box(label: str, values: list[float], where: str) -> SourceBox:
    if len(values) in (4, 5):  # the fifth is a detector's confidence
        x, y, width, height = values[:4]
        return SourceBox(label, x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    if len(values) >= 6 and len(values) % 2 == 0:
        return SourceBox(label, min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
    raise ValueError(f"{where}: {len(values) + 1} numbers are neither a box nor a polygon")
