"""Checks that every source of boxes in pixels shares: swapped corners, and fractions in place of pixels."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace

from headstart.base.errors import UserError
from headstart.fetch.sources.records import Rejection, SourceBox, SourceImage

_ROUNDING = 1e-4  # a fraction written with few digits may lie that far beyond 0 or 1
_BEYOND = 0.5  # a box that reaches over the edge of its picture may lie that far beyond
_MOST = 0.9


def order_corners(box: SourceBox) -> SourceBox:
    """The same box with xmin <= xmax and ymin <= ymax: tools that flip pictures leave the corners swapped."""
    if box.xmin <= box.xmax and box.ymin <= box.ymax:
        return box
    (xmin, xmax), (ymin, ymax) = sorted((box.xmin, box.xmax)), sorted((box.ymin, box.ymax))
    return replace(box, xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)


def are_fractions(boxes: Iterable[SourceBox]) -> bool:
    """Whether there is a box, and all corners lie within 0 and 1, or those of nearly all boxes, and the others close.

    No set in pixels looks like that.
    """
    boxes = list(boxes)
    inside = sum(_lies_within(box, _ROUNDING) for box in boxes)
    return bool(boxes) and inside >= _MOST * len(boxes) and all(_lies_within(box, _BEYOND) for box in boxes)


def _lies_within(box: SourceBox, beyond: float) -> bool:
    return all(-beyond <= corner <= 1 + beyond for corner in (box.xmin, box.ymin, box.xmax, box.ymax))


def check_units(
    items: Sequence[SourceImage | Rejection], where: str, fix: str = "write them in pixels, or export the set again"
) -> list[SourceImage | Rejection]:
    """The pictures of a source in pixels, after a look at the size of its boxes.

    Where the boxes of the source lie within 0 and 1, they are fractions. They are scaled to the annotated width and
    height (`frame`) where every picture that has boxes has these, and a line on stderr tells so. A picture with one
    such box in a source of pixels is rejected.

    Args:
        items: what the source lists; boxes as they are written, with `frame` the annotated size.
        where: kind and path, such as `coco:data/a.json`.
        fix: what the user can do where no width and height are given.

    Raises:
        UserError: all boxes are fractions, and a picture lacks its width and height.
    """
    boxed = [item for item in items if isinstance(item, SourceImage) and item.boxes]
    if not are_fractions(box for item in boxed for box in item.boxes):
        return [_reject_fraction(item) for item in items]
    found = "all corners lie within 0 and 1"
    lacking = next((item for item in boxed if item.frame is None or min(item.frame) <= 1), None)
    if lacking is not None:
        raise UserError(f"{where}: {found}, and pixels are expected; no width and height for {lacking.location}: {fix}")
    print(f"fetch: {where}: {found}: read as fractions of the picture", file=sys.stderr)
    return [_scale_to_frame(item) if isinstance(item, SourceImage) else item for item in items]


def _scale_to_frame(item: SourceImage) -> SourceImage:
    """Fractions as pixels of the annotated size, which also decides whether they are of the upright picture."""
    width, height = item.frame or (1.0, 1.0)
    boxes = tuple(
        replace(b, xmin=b.xmin * width, ymin=b.ymin * height, xmax=b.xmax * width, ymax=b.ymax * height)
        for b in item.boxes
    )
    return replace(item, boxes=boxes)


def _reject_fraction(item: SourceImage | Rejection) -> SourceImage | Rejection:
    if isinstance(item, Rejection):
        return item
    fraction = next((box for box in item.boxes if are_fractions([box])), None)
    if fraction is None:
        return item
    corners = ", ".join(f"{corner:g}" for corner in (fraction.xmin, fraction.ymin, fraction.xmax, fraction.ymax))
    where = f"{fraction.where}: " if fraction.where else ""
    reason = (
        f"{where}the box {corners} of {fraction.label!r} lies within one pixel, and others of the source are in pixels"
    )
    return Rejection(item.source, item.location, "box", reason)
