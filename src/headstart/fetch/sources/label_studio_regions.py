"""Regions of Label Studio: shapes in percent of the picture become boxes in pixels of its annotated size."""

import math
from typing import Any

from headstart.fetch.sources.annotated import read_label, read_list, read_object
from headstart.fetch.sources.records import SourceBox
from headstart.fetch.sources.shapes import Corners, box_round_ellipse, box_round_points, read_number

Contents = tuple[tuple[SourceBox, ...], tuple[float, float], str | None]

# What a region is drawn with: the key of its labels is that and `labels` (`rectanglelabels`), or `labels` alone.
_SHAPES = ("rectangle", "ellipse", "polygon")
_WITHOUT_BOX = ("brush", "bitmask", "keypoint", "vector", "videorectangle", "magicwand", "cube", "skeleton")
_FAR_OUTSIDE = 50  # percent beyond the edge: not a shape that reaches over it, but another unit


def read_results(results: list[Any], where: str) -> Contents:
    """Boxes of one annotation, the size that they refer to, and the label of the picture (its only choice).

    The size is the annotated one, or `(1, 1)` where the results do not have it.

    Raises:
        ValueError: a region cannot be used, or the results contradict each other.
    """
    items = [_merge_value(entry, number) for number, entry in enumerate(results, start=1)]
    labelled = {item["id"] for item in items if item.get("id") and _labels_key(item)}
    regions = []
    choices: list[str] = []
    for item in items:
        kind = str(item.get("type") or "")
        if kind == "choices" or "choices" in item["value"]:
            if item.get("id") not in labelled:  # else it describes a region, not the picture
                choices += [read_label(one) for one in read_list(item["value"].get("choices"), "`choices`")]
        elif _is_region(item) and (_labels_key(item) or item.get("id") not in labelled):
            regions.append(item)
    drawn_on = sorted({str(region["to_name"]) for region in regions if region.get("to_name")})
    if len(drawn_on) > 1:
        raise ValueError(f"its regions are drawn on {' and '.join(drawn_on)}; give each picture a task of its own")
    frames = {frame for frame in map(_read_size, regions) if frame is not None}
    if len(frames) > 1:
        raise ValueError("its regions are of pictures of different sizes")
    if len(set(choices)) > 1:
        raise ValueError(f"the choices {', '.join(sorted(set(choices)))}, and a picture has one label")
    frame = frames.pop() if frames else None
    boxes = tuple(_read_box(item, number, frame, where) for number, item in enumerate(regions, start=1))
    return boxes, frame or (1.0, 1.0), choices[0] if choices else None


def _merge_value(entry: object, number: int) -> dict[str, Any]:
    item = read_object(entry, f"result {number}")
    return {**item, "value": read_object(item.get("value") or {}, f"the value of result {number}")}


def _labels_key(item: dict[str, Any]) -> str | None:
    """The key of the value that holds the labels of a region."""
    keys = [str(key) for key in item["value"] if key.endswith("labels") and _shape_of(item) is not None]
    return keys[0] if keys else None


def _shape_of(item: dict[str, Any]) -> str | None:
    """What a result is drawn with, by its type, the key of its labels, or its numbers; None: it is no region."""
    value = item["value"]
    names = [str(item.get("type") or ""), *(key for key in value if key.endswith("labels"))]
    for name in names:
        shape = str(name).removesuffix("labels")
        if shape in (*_SHAPES, *_WITHOUT_BOX):
            return shape
    if "radiusX" in value:
        return "ellipse"
    if "width" in value and "height" in value and "x" in value:
        return "rectangle"
    if "points" in value:
        return "polygon"
    return "brush" if "rle" in value else "keypoint" if "x" in value else None


def _is_region(item: dict[str, Any]) -> bool:
    return _shape_of(item) is not None


def _read_size(item: dict[str, Any]) -> tuple[float, float] | None:
    width, height = item.get("original_width"), item.get("original_height")
    if not width or not height:
        return None
    size = read_number(width), read_number(height)
    if min(size) <= 0:
        raise ValueError(f"original_width and original_height are {size[0]:g} and {size[1]:g}")
    return size


def _read_box(item: dict[str, Any], number: int, frame: tuple[float, float] | None, where: str) -> SourceBox:
    try:
        key = _labels_key(item)
        labels = read_list(item["value"].get(key), f"`{key}`") if key else []
        _check_region(item, labels)
        corners = _corners_of(item["value"], str(_shape_of(item)), frame)
        return SourceBox(read_label(labels[0]), *corners, where=f"{where}: region {number}")
    except ValueError as error:
        raise ValueError(f"region {number}: {error}") from None


def _check_region(item: dict[str, Any], labels: list[Any]) -> None:
    if len(labels) != 1:
        raise ValueError(f"{len(labels)} labels, and a box has one")
    if item.get("image_rotation"):
        raise ValueError("drawn on the picture while it was turned; turn the file and annotate it upright")


def _corners_of(value: dict[str, Any], shape: str, frame: tuple[float, float] | None) -> Corners:
    """The box round a shape, in units of `frame`, or as fractions where that is None.

    x and y are the first corner of a rectangle, which is turned about it, clockwise; and the centre of an ellipse.

    Raises:
        ValueError: the shape has no box, or its numbers are no percents.
    """
    if shape in _WITHOUT_BOX:
        raise ValueError(f"a region drawn with {shape!r} has no box; take it out, or draw a rectangle")
    width, height = (side / 100 for side in frame or (1.0, 1.0))
    if shape == "polygon":
        points = [_read_percents(point, 2) for point in read_list(value.get("points"), "`points`")]
        if len(points) < 3 or value.get("closed") is False:
            raise ValueError(f"an outline of {len(points)} points that is not closed")
        return box_round_points([(x * width, y * height) for x, y in points])
    keys = ("x", "y", "width", "height") if shape == "rectangle" else ("x", "y", "radiusX", "radiusY")
    x, y, across, down = _read_percents([value.get(key) for key in keys], 4)
    if across <= 0 or down <= 0:
        raise ValueError(f"a shape of width {across:g} and height {down:g} has no area")
    degrees = read_number(value.get("rotation") or 0) % 360
    if degrees and frame is None:
        raise ValueError("turned, and without original_width and original_height; export it again")
    x, y, across, down = x * width, y * height, across * width, down * height
    if shape == "ellipse":
        return box_round_ellipse((x, y), across, down, degrees)
    # At right angles cosine and sine are exact: 1e-16 of a side would make another box.
    cosine, sine = (round(turn(math.radians(degrees)), 15) for turn in (math.cos, math.sin))
    right, below = (across * cosine, across * sine), (-down * sine, down * cosine)
    ends = [(0.0, 0.0), right, below, (right[0] + below[0], right[1] + below[1])]
    return box_round_points([(x + dx, y + dy) for dx, dy in ends])


def _read_percents(values: object, count: int) -> list[float]:
    numbers = [read_number(value) for value in read_list(values, "a point")]
    if len(numbers) != count:
        raise ValueError(f"a point of {len(numbers)} numbers")
    outside = next((number for number in numbers if not -_FAR_OUTSIDE <= number <= 100 + _FAR_OUTSIDE), None)
    if outside is not None:
        raise ValueError(f"{outside:g} is not a percentage of the picture's side")
    return numbers
