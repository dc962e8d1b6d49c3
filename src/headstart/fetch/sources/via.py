"""Source `via`: pictures and one JSON file of the VGG Image Annotator, versions 1 and 2."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from headstart.base.errors import UserError, list_some
from headstart.fetch.sources.annotated import Annotated, Pictures, read_label, read_list, read_object, to_items
from headstart.fetch.sources.box_checks import check_units
from headstart.fetch.sources.json_files import read_json
from headstart.fetch.sources.records import Rejection, SourceBox, SourceImage
from headstart.fetch.sources.shapes import Corners, box_round_ellipse, box_round_points, read_number
from headstart.params.fetch import ViaParams


class _Entry(NamedTuple):
    """One picture of the file: its place there, its name, its regions or why they cannot be read."""

    where: str
    name: str
    size: int | None
    regions: list[dict[str, Any]]
    attributes: dict[str, Any]  # of the whole picture
    problem: str


def list_images(params: ViaParams, root: Path, *, label_given: bool) -> Iterator[SourceImage | Rejection]:
    """Every picture of the JSON file, in its order; one without regions is background.

    Outlines, circles and ellipses give the box round them; a picture with a region that has no area (points, lines)
    is rejected. The label of a region is its attribute `params.attribute`; where no picture has regions, the label of
    a picture is its file attribute.

    Args:
        params: the section.
        root: the repository root.
        label_given: the source sets a label for all its boxes, so they need no attribute.

    Raises:
        UserError: the folder or the file is missing, it is not VIA's, or it is not clear which attribute is the label.
    """
    pictures = Pictures("via.images", params.images, root)
    where = f"via.annotations: {params.annotations}"
    entries = [
        _read_entry(key, value, params.annotations)
        for key, value in _read_pictures(root / params.annotations, where).items()
    ]
    regions = [region for entry in entries for region in entry.regions]
    found = [region.get("region_attributes") for region in regions] or [entry.attributes for entry in entries]
    attribute = _choose_attribute(found, params.attribute, where, needed=bool(regions) and not label_given)
    source = f"via:{params.annotations}"
    annotated = [_annotate(entry, attribute, label_given=label_given) for entry in entries]
    yield from check_units(to_items(annotated, pictures, source), source, "write corners in pixels")


def _read_pictures(path: Path, where: str) -> dict[str, Any]:
    """Key -> picture of an export of annotations, or of a project."""
    data = read_json(path, where, "name the JSON file of the export")
    if isinstance(data, dict) and {"file", "view", "metadata"} <= data.keys():
        raise UserError(
            f"{where}: a project of VIA 3, and VIA 1 and 2 are read; export it as COCO and name it in `coco:`"
        )
    if isinstance(data, dict) and "_via_img_metadata" in data:
        data = data["_via_img_metadata"]
    if not isinstance(data, dict) or not any(isinstance(v, dict) and "regions" in v for v in data.values()):
        raise UserError(f"{where}: no pictures with `regions` in it; export it from VIA as JSON")
    return dict(data)


def _read_entry(key: str, value: object, annotations: str) -> _Entry:
    where = f"{annotations}: {key}"
    name = value.get("filename") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(name, str) or not name.strip():
        return _Entry(where, "", None, [], {}, "an entry without `filename`")
    size = value.get("size")
    bytes_ = size if isinstance(size, int) and size > 0 else None
    attributes = value.get("file_attributes")
    attributes = attributes if isinstance(attributes, dict) else {}
    try:
        written = value.get("regions")
        regions = list(written.values()) if isinstance(written, dict) else read_list(written, "`regions`")  # VIA 1
        read = [read_object(region, f"region {number}") for number, region in enumerate(regions, start=1)]
        return _Entry(where, name, bytes_, read, attributes, "")
    except ValueError as error:
        return _Entry(where, name, bytes_, [], attributes, str(error))


def _choose_attribute(found: list[Any], wanted: str | None, where: str, *, needed: bool) -> str | None:
    """The attribute that is the label: the one that the user names, or the only one that all have.

    Raises:
        UserError: there is none, or there are several.
    """
    some = [attributes for attributes in found if isinstance(attributes, dict)]
    counts = Counter(name for one in some for name, value in one.items() if value not in ("", None, {}))
    names: list[str] = sorted(counts)
    fix = f"name one: `attribute: {names[0]}`" if names else "give the regions an attribute, or set `label:`"
    if wanted is not None:
        if wanted not in counts and found and (needed or names):
            raise UserError(
                f"{where}: no region has the attribute {wanted!r}; known are {list_some(names, 5) or 'none'}"
            )
        return wanted
    complete = [name for name in names if counts[name] == len(found)]
    if len(complete) == 1 or len(names) == 1:
        return complete[0] if complete else names[0]
    if needed:
        has = f"the attributes {list_some(names, 5)}" if names else "no attribute"
        raise UserError(f"{where}: regions have {has}, and one must be the label; {fix}")
    return None


def _annotate(entry: _Entry, attribute: str | None, *, label_given: bool) -> Annotated:
    names = tuple(dict.fromkeys((entry.name, entry.name.partition("?")[0]))) if entry.name else ()
    boxes = []
    problem = entry.problem
    label = None
    for number, region in enumerate(entry.regions, start=1):
        try:
            boxes.append(_read_box(region, attribute, f"{entry.where}: region {number}", label_given=label_given))
        except ValueError as error:
            problem = problem or f"region {number}: {error}"
    try:
        label = None if entry.regions else _read_attribute(entry.attributes, attribute)
    except ValueError as error:
        problem = problem or str(error)
    return Annotated(names, entry.where, tuple(boxes), None, label, problem, size=entry.size)


def _read_box(region: dict[str, Any], attribute: str | None, where: str, *, label_given: bool) -> SourceBox:
    label = _read_attribute(region.get("region_attributes"), attribute)
    if label is None and not label_given:
        raise ValueError(f"no attribute {attribute!r}")
    corners = _box_of(read_object(region.get("shape_attributes"), "`shape_attributes`"))
    return SourceBox(label or "unnamed", *corners, where=where)  # the label of the source replaces that


def _read_attribute(attributes: object, name: str | None) -> str | None:
    """The value of an attribute: text, or the only option of checkboxes that is true; None: it has none.

    Raises:
        ValueError: it has several.
    """
    value = attributes.get(name) if isinstance(attributes, dict) and name is not None else None
    if isinstance(value, dict):
        chosen = [option for option, is_chosen in value.items() if is_chosen]
        if len(chosen) > 1:
            raise ValueError(f"the attribute {name!r} is {list_some(chosen, 5)}, and a box has one label")
        value = chosen[0] if chosen else None
    return None if value is None or value == "" else read_label(value)


def _box_of(shape: dict[str, Any]) -> Corners:
    """The box round a region; an ellipse is turned by `theta`, in radians.

    Raises:
        ValueError: it has no area, or lacks a number.
    """
    kind = shape.get("name")

    def number(key: str) -> float:
        try:
            return read_number(shape.get(key))
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None

    if kind == "rect":
        x, y, width, height = (number(key) for key in ("x", "y", "width", "height"))
        if width <= 0 or height <= 0:
            raise ValueError(f"a rectangle of width {width:g} and height {height:g} has no area")
        return x, y, x + width, y + height
    if kind == "circle":
        return _check_radius(box_round_ellipse((number("cx"), number("cy")), number("r"), number("r"), 0), number("r"))
    if kind == "ellipse":
        degrees = math.degrees(number("theta")) if "theta" in shape else 0.0
        rx, ry = number("rx"), number("ry")
        return _check_radius(box_round_ellipse((number("cx"), number("cy")), rx, ry, degrees), rx, ry)
    if kind == "polygon":
        xs, ys = (read_list(shape.get(f"all_points_{axis}"), f"`all_points_{axis}`") for axis in "xy")
        if len(xs) != len(ys) or len(xs) < 3:
            raise ValueError(f"a polygon of {len(xs)} x and {len(ys)} y")
        return box_round_points([(read_number(x), read_number(y)) for x, y in zip(xs, ys, strict=True)])
    raise ValueError(f"a region of type {str(kind)[:40]!r} has no box; take it out, or draw a rectangle")


def _check_radius(corners: Corners, *radii: float) -> Corners:
    if min(radii) <= 0:
        raise ValueError(f"a radius of {min(radii):g}")
    return corners
