"""Boxes of the shapes of CVAT's XML."""

import xml.etree.ElementTree as ET

from headstart.fetch.sources.shapes import (
    Corners,
    box_round_ellipse,
    box_round_points,
    box_round_rotated,
    box_round_runs,
    read_number,
)


def read_box(shape: ET.Element) -> Corners:
    """The upright box round a shape.

    Args:
        shape: `box`, `polygon`, `ellipse`, `mask` or `cuboid`, as CVAT writes them.

    Raises:
        ValueError: it has no label, is of another kind, or its numbers make no such shape.
    """
    readers = {
        "box": _read_rectangle,
        "polygon": _read_polygon,
        "ellipse": _read_ellipse,
        "mask": _read_mask,
        "cuboid": _read_cuboid,
    }
    if shape.tag not in readers:
        raise ValueError(f"<{shape.tag}> has no box; draw a box, or take the shape out")
    if not shape.get("label", "").strip():
        raise ValueError(f"a {shape.tag} without a label")
    return readers[shape.tag](shape)


def _read_rectangle(shape: ET.Element) -> Corners:
    x1, y1, x2, y2 = (_read_attribute(shape, name) for name in ("xtl", "ytl", "xbr", "ybr"))
    corners = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
    return box_round_rotated(corners, _read_rotation(shape))


def _read_polygon(shape: ET.Element) -> Corners:
    points = []
    for text in shape.get("points", "").split(";"):
        pair = text.split(",")
        if len(pair) != 2:
            raise ValueError(f"a polygon with the point {text[:40]!r}, not x,y")
        points.append((read_number(pair[0]), read_number(pair[1])))
    if len(points) < 3:
        raise ValueError("a polygon of fewer than three points")
    return box_round_points(points)


def _read_ellipse(shape: ET.Element) -> Corners:
    x, y, rx, ry = (_read_attribute(shape, name) for name in ("cx", "cy", "rx", "ry"))
    if rx <= 0 or ry <= 0:
        raise ValueError(f"an ellipse with the half axes {rx:g} and {ry:g}")
    return box_round_ellipse((x, y), rx, ry, _read_rotation(shape))


def _read_mask(shape: ET.Element) -> Corners:
    left, top, width, height = (_read_attribute(shape, name) for name in ("left", "top", "width", "height"))
    try:
        runs = [int(run) for run in shape.get("rle", "").split(",")]
    except ValueError:
        raise ValueError("a mask whose rle is not whole numbers") from None
    y1, x1, y2, x2 = box_round_runs(runs, int(height), int(width))  # CVAT's masks run along rows
    return left + x1, top + y1, left + x2, top + y2


def _read_cuboid(shape: ET.Element) -> Corners:
    corners = [f"{y}{x}{face}" for face in (1, 2) for y in "tb" for x in "lr"]  # xtl1, ytl1, … xbr2, ybr2
    return box_round_points(
        [(_read_attribute(shape, f"x{corner}"), _read_attribute(shape, f"y{corner}")) for corner in corners]
    )


def _read_rotation(shape: ET.Element) -> float:
    return _read_attribute(shape, "rotation") if "rotation" in shape.attrib else 0.0


def _read_attribute(shape: ET.Element, name: str) -> float:
    if name not in shape.attrib:
        raise ValueError(f"a {shape.tag} without {name}")
    try:
        return read_number(shape.attrib[name])
    except ValueError as error:
        raise ValueError(f"a {shape.tag} whose {name}={error}") from None
