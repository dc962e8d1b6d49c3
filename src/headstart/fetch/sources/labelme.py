"""Source `labelme`: pictures and one JSON file of LabelMe (or AnyLabeling) for each."""

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from headstart.base.errors import UserError
from headstart.fetch.sources.annotated import Annotated, Pictures, read_label, read_list, read_object, to_items
from headstart.fetch.sources.box_checks import check_units
from headstart.fetch.sources.json_files import read_json
from headstart.fetch.sources.paths import printable_path, require_folder, walk_files
from headstart.fetch.sources.records import Rejection, SourceBox, SourceImage
from headstart.fetch.sources.shapes import Corners, box_round_points, read_number
from headstart.params.fetch import LabelMeParams

# How many points each kind of shape has; None: three or more.
_POINTS: dict[str, tuple[int, ...] | None] = {
    "rectangle": (2, 4),
    "circle": (2,),
    "mask": (2,),
    "rotation": (4,),
    "polygon": None,
}


def list_images(params: LabelMeParams, root: Path) -> Iterator[SourceImage | Rejection]:
    """Every picture that has a JSON file, sorted by that file; a picture without one is left out.

    A picture belongs to the JSON file of the same name, as LabelMe opens it, or else to the one whose `imagePath`
    names it. Outlines, circles and masks give the box round them; shapes of one group and label are one object. A
    picture with a shape that has no area (points, lines) is rejected. Without shapes, the only flag that is true is
    the label; without that, the picture is background.

    Raises:
        UserError: a folder is missing, there is no picture in it, or no JSON file.
    """
    pictures = Pictures("labelme.images", params.images, root)
    display_folder = params.annotations or params.images
    folder = require_folder("labelme.annotations", display_folder, root)
    files = [path for path in walk_files(folder) if path.suffix.lower() == ".json"]
    if not files:
        raise UserError(f"labelme.annotations: {display_folder}: no .json file in it; name the folder of annotations")
    entries = []
    for path in files:
        inside = path.relative_to(folder)
        entries.append(_read_file(path, inside, printable_path(Path(display_folder) / inside), pictures))
    source = f"labelme:{display_folder}"
    fix = "save the annotations with imageWidth and imageHeight, or in pixels"
    yield from check_units(to_items(entries, pictures, source), source, fix)


def _read_file(path: Path, inside: Path, where: str, pictures: Pictures) -> Annotated:
    """One JSON file; what cannot be read in it is its picture's problem, not the whole set's."""
    stem = inside.with_suffix("").as_posix()
    names, problem = _find_names("", stem, pictures)
    try:
        data = read_object(read_json(path, where, "put it there"), "the file")
        names, problem = _find_names(data.get("imagePath"), stem, pictures)
        boxes, label = _read_contents(data, where)
        return Annotated(names, where, boxes, _read_size(data), label, problem)
    except UserError as error:
        return Annotated(names, where, problem=str(error).removeprefix(f"{where}: "))
    except ValueError as error:
        return Annotated(names, where, problem=problem or str(error))


def _find_names(image_path: object, stem: str, pictures: Pictures) -> tuple[tuple[str, ...], str]:
    """The names of the picture of a JSON file, and why it is not clear which one it is."""
    written = image_path if isinstance(image_path, str) else ""
    same = [path.relative_to(pictures.folder).as_posix() for path in pictures.of_stem(stem)]
    if len(same) > 1:
        last = PurePosixPath(written.replace("\\", "/")).name
        same = [name for name in same if PurePosixPath(name).name == last] or same
    if len(same) > 1:
        return (same[0],), f"{same[0]!r} and {same[1]!r} have its name; take one out"
    return tuple(name for name in (*same, written) if name) or (f"{stem}.jpg",), ""


def _read_size(data: dict[str, Any]) -> tuple[float, float] | None:
    if not data.get("imageWidth") or not data.get("imageHeight"):
        return None
    width, height = read_number(data["imageWidth"]), read_number(data["imageHeight"])
    if min(width, height) <= 0:
        raise ValueError(f"imageWidth and imageHeight are {width:g} and {height:g}")
    return width, height


def _read_contents(data: dict[str, Any], where: str) -> tuple[tuple[SourceBox, ...], str | None]:
    """The boxes of the shapes, and the label that a flag gives to the whole picture."""
    shapes = read_list(data.get("shapes"), "`shapes`")
    boxes: dict[tuple[str, str], SourceBox] = {}
    for number, entry in enumerate(shapes, start=1):
        place = f"shape {number}"
        try:
            shape = read_object(entry, "it")
            kind = shape.get("shape_type") or "polygon"  # files of before 2018 hold outlines alone
            label = read_label(shape.get("label"))
            box = SourceBox(label, *_box_of(shape, kind), where=f"{where}: {place}")
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
        group = shape.get("group_id")
        is_part = group is not None and kind != "rectangle"  # parts of one object that something covers in between
        key = (label, f"group {group}") if is_part else (label, place)
        boxes[key] = _unite(boxes[key], box) if key in boxes else box
    flags = data.get("flags") or {}
    true = [name for name, value in flags.items() if value is True] if isinstance(flags, dict) else []
    if not shapes and len(true) > 1:
        raise ValueError(f"the flags {', '.join(true)} are all true, and a picture has one label")
    return tuple(boxes.values()), read_label(true[0]) if true and not shapes else None


def _box_of(shape: dict[str, Any], kind: object) -> Corners:
    """The box round a shape.

    Raises:
        ValueError: it has no area, or its points are not what its kind has.
    """
    if kind not in _POINTS:
        raise ValueError(f"a shape of type {str(kind)[:40]!r} has no box; take it out, or draw a rectangle")
    points = []
    for point in read_list(shape.get("points"), "`points`"):
        x, y = (read_number(number) for number in _pair(point))
        points.append((x, y))
    counts = _POINTS[str(kind)]
    if len(points) not in counts if counts else len(points) < 3:
        raise ValueError(f"a shape of type {kind!r} with {len(points)} points")
    if kind == "circle":
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        return x - radius, y - radius, x + radius, y + radius
    xmin, ymin, xmax, ymax = box_round_points(points)
    if kind == "mask":  # LabelMe writes its first and its last pixel
        return xmin, ymin, xmax + 1, ymax + 1
    return xmin, ymin, xmax, ymax


def _pair(point: object) -> list[Any]:
    pair = read_list(point, "a point")
    if len(pair) != 2:
        raise ValueError("a point is not two numbers")
    return pair


def _unite(one: SourceBox, other: SourceBox) -> SourceBox:
    corners = box_round_points(
        [(one.xmin, one.ymin), (one.xmax, one.ymax), (other.xmin, other.ymin), (other.xmax, other.ymax)]
    )
    return SourceBox(one.label, *corners, where=one.where)
