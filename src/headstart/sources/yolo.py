"""An annotated set as YOLO: for each picture a text file, one line `class x y width height` for each box."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from headstart.errors import UserError, missing_file
from headstart.fetch_params import YoloParams
from headstart.sources.folder import PICTURE_SUFFIXES, SPLIT_NAMES, files_under, need_folder, shown, split_folders
from headstart.sources.wanted import Box, Failed, Local, Wanted, only_label


def wanted(params: YoloParams, root: Path) -> Iterator[Wanted | Failed]:
    """Every picture of the folder, sorted by path, with the boxes of its text file; without one it is background.

    Boxes are fractions of the upright picture, by their centre; an outline (as segmentation exports have it) becomes
    the box around it. Folders train, val and test below the folder of pictures pin the splits.

    Raises:
        UserError: a folder or the file of names is missing, there is no picture, or a line has a class without name.
    """
    images = need_folder("yolo.images", params.images, root)
    labels = need_folder("yolo.labels", params.labels, root)
    names = _names(root / params.names, params.names)
    source = f"yolo:{params.labels}"
    has_splits = split_folders(images)
    pictures = [path for path in files_under(images) if path.suffix.lower() in PICTURE_SUFFIXES]
    if not pictures:
        raise UserError(f"yolo.images: {params.images}: no pictures in it; name the folder of pictures")
    unused = {path for path in files_under(labels) if path.suffix == ".txt" and path != root / params.names}
    unused.discard(labels / "classes.txt")  # labelImg leaves the names among the labels
    for path in pictures:
        inside = path.relative_to(images)
        text = labels / inside.with_suffix(".txt")
        unused.discard(text)
        location = shown(Path(params.images) / inside)
        try:
            boxes = _boxes(text, shown(Path(params.labels) / text.relative_to(labels)), names, params.names)
        except ValueError as error:
            yield Failed(source, location, "annotation", str(error))
            continue
        split = SPLIT_NAMES[inside.parts[0].lower()] if has_splits else None
        yield Wanted(location, source, Local(path), only_label(boxes), split, boxes=boxes, frame=(1.0, 1.0))
    for text in sorted(unused):
        where = shown(Path(params.labels) / text.relative_to(labels))
        yield Failed(source, where, "missing", f"no picture for these labels in {params.images}")


def _names(path: Path, shown: str) -> dict[int, str]:
    """Class number -> name: `names:` of a data.yaml (a list, or numbers with names), or one name a line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise missing_file(f"yolo.names: {shown}", "name data.yaml, or a text file with one class a line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"yolo.names: {shown}: cannot be read ({error})") from None
    if path.suffix.lower() not in (".yaml", ".yml"):
        return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))
    try:
        found = yaml.safe_load(text)["names"]
        pairs = found.items() if isinstance(found, dict) else enumerate(found)
        return {int(number): str(name) for number, name in pairs}
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        raise UserError(f"yolo.names: {shown}: no list `names:` in it; write `names: [cat, dog]`") from None


def _boxes(path: Path, shown: str, names: dict[int, str], names_file: str) -> tuple[Box, ...]:
    if not path.is_file():
        return ()
    boxes = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        cells = line.split()
        if not cells:
            continue
        try:
            values = [float(cell) for cell in cells]
        except ValueError:
            raise ValueError(f"{shown}: line {number}: {line[:40]!r} is no box: five numbers") from None
        if int(values[0]) not in names:
            known = f"{names_file} has only {len(names)}"
            raise UserError(f"yolo.labels: {shown}: line {number}: class {cells[0]} has no name; {known}: add it")
        boxes.append(_box(names[int(values[0])], values[1:], f"{shown}: line {number}"))
    return tuple(dict.fromkeys(boxes))


def _box(label: str, values: list[float], where: str) -> Box:
    if len(values) in (4, 5):  # the fifth is a detector's confidence
        x, y, width, height = values[:4]
        return Box(label, x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    if len(values) >= 6 and len(values) % 2 == 0:
        return Box(label, min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
    raise ValueError(f"{where}: {len(values) + 1} numbers are neither a box nor an outline")
