"""Boxes of COCO annotations: bbox, outline or run-length encoded mask, and CVAT's rotation."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from headstart.base.errors import UserError
from headstart.base.manifest import xywh_to_xyxy
from headstart.fetch.sources.records import SourceBox
from headstart.fetch.sources.shapes import (
    Corners,
    box_round_points,
    box_round_rotated,
    box_round_runs,
    decode_coco_counts,
    read_number,
)


def read_shape(annotation: dict[str, Any]) -> Corners:
    """The box of an annotation: its bbox, turned by CVAT's `attributes.rotation`, else the box round its outline.

    Raises:
        ValueError: it has neither, or numbers that make no box.
    """
    bbox = annotation.get("bbox")
    if bbox is None or bbox == []:
        return box_round_segmentation(annotation.get("segmentation"))
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise ValueError(f"its bbox {str(bbox)[:60]} is not x, y, width and height")
    x, y, width, height = (read_number(value) for value in bbox)
    if width <= 0 or height <= 0:
        raise ValueError(f"its bbox has the width {width:g} and the height {height:g}")
    return box_round_rotated(xywh_to_xyxy((x, y, width, height)), _read_rotation(annotation.get("attributes")))


def _read_rotation(attributes: object) -> float:
    """Degrees of CVAT's exports, whose bbox is the rectangle before it was turned; 0: not turned."""
    rotation = attributes.get("rotation") if isinstance(attributes, dict) else None
    # Text is an attribute of the user's own: CVAT's is a number.
    return 0.0 if rotation is None or isinstance(rotation, str | bool) else read_number(rotation)


def box_round_segmentation(segmentation: object) -> Corners:
    """The box round outlines `[[x, y, x, y, …], …]`, or round a mask `{size: [height, width], counts: …}`.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(segmentation, dict):
        return _box_round_mask(segmentation)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("it has neither a bbox nor an outline")
    outlines = segmentation if isinstance(segmentation[0], list) else [segmentation]
    points: list[tuple[float, float]] = []
    for outline in outlines:
        if not isinstance(outline, list) or len(outline) < 6 or len(outline) % 2:
            raise ValueError("it has no bbox, and its outline is not x, y, x, y, … of at least three points")
        numbers = [read_number(value) for value in outline]
        points += zip(numbers[::2], numbers[1::2], strict=True)
    return box_round_points(points)


def _box_round_mask(mask: dict[str, Any]) -> Corners:
    size, counts = mask.get("size"), mask.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) for side in size):
        raise ValueError("it has no bbox, and its mask has no size [height, width]")
    height, width = size
    runs = decode_coco_counts(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) for run in runs):
        raise ValueError("it has no bbox, and its mask has no counts")
    xmin, ymin, xmax, ymax = box_round_runs(runs, width, height)  # COCO's masks run along columns
    return float(xmin), float(ymin), float(xmax), float(ymax)


def read_crowd(value: object) -> bool:
    """`iscrowd`: 0 or 1.

    Raises:
        ValueError: it is something else.
    """
    if value is None or value in (0, 1, "0", "1"):
        return value in (1, "1")
    raise ValueError(f"its iscrowd is {str(value)[:40]!r}, neither 0 nor 1")


def check_areas(annotations: Iterable[dict[str, Any]], where: str) -> None:
    """Detect `bbox: [xmin, ymin, xmax, ymax]` by `area`, which no exporter computes from a width that is none.

    Raises:
        UserError: `area` of every annotation that has both is that of its bbox read as two corners, and of one at
            least it is not that of x, y, width, height.
    """
    differing = ""
    for annotation in annotations:
        try:
            x, y, right, bottom = (read_number(value) for value in annotation.get("bbox") or [])
            size = read_number(annotation.get("area"))
        except (TypeError, ValueError):  # no area, or no bbox of four numbers, which rejects its picture
            continue
        if not (x < right and y < bottom and math.isclose((right - x) * (bottom - y), size, rel_tol=1e-3)):
            return
        if not math.isclose(right * bottom, size, rel_tol=1e-3):
            differing = differing or f"annotation {annotation.get('id')}: {x:g}, {y:g}, {right:g}, {bottom:g}"
    if differing:
        raise UserError(
            f"{where}: {differing}: the bbox is xmin, ymin, xmax, ymax by its `area`, as all of them are, and COCO has "
            "x, y, width, height; export it again"
        )


def check_not_corners(pictures: Iterable[tuple[Sequence[SourceBox], tuple[float, float] | None]], where: str) -> None:
    """Detect `bbox: [xmin, ymin, xmax, ymax]` in place of `[x, y, width, height]`.

    Args:
        pictures: boxes, and the annotated width and height, of each picture.
        where: how the error line begins.

    Raises:
        UserError: every bbox lies within its picture if it is read as corners, and as COCO writes it, one in ten or
            more reaches beyond by more than 5 % of the side. (Two thirds would, if they were corners.)
    """
    beyond, count, total = "", 0, 0
    for boxes, frame in pictures:
        for box in boxes:
            xmax, ymax = box.xmax - box.xmin, box.ymax - box.ymin  # what stands in the file
            if frame is None or not (box.xmin < xmax <= frame[0] and box.ymin < ymax <= frame[1]):
                return
            total += 1
            if box.xmax > 1.05 * frame[0] + 2 or box.ymax > 1.05 * frame[1] + 2:
                count += 1
                beyond = beyond or f"{box.where}: {box.xmin:g}, {box.ymin:g}, {xmax:g}, {ymax:g}"
    if count and count >= total / 10:
        raise UserError(
            f"{where}: the bbox of {beyond} reaches beyond its picture; all would fit as xmin, ymin, xmax, ymax, and "
            "COCO has x, y, width, height; export it again"
        )
