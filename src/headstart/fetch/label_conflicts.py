"""Identical pictures whose labels or boxes contradict each other: at least one of the two is wrong."""

import sys
from collections import defaultdict
from collections.abc import Sequence

from headstart.base.errors import UserError, list_some
from headstart.fetch.boxes import PixelBox
from headstart.fetch.outputs import FETCH_FOLDER, StoredImage
from headstart.fetch.sources.records import Rejection

_SAME_IOU = 0.5  # of two boxes of one object: people draw it differently, and tools count pixels from 0 or from 1
Pair = tuple[StoredImage, StoredImage]


def find_conflicts(stored: Sequence[StoredImage], *, boxes: bool) -> list[Pair]:
    """Each picture with the same bytes as an earlier one and another label, after the first such earlier one.

    Args:
        stored: the pictures, in the order of the sources.
        boxes: the task learns from boxes: another label or number of boxes, or a box with an IoU below 0.5, is a
            contradiction; else another label of the picture is.
    """
    by_sha256: dict[str, list[StoredImage]] = defaultdict(list)
    conflicts = []
    for item in stored:
        kinds = by_sha256[item.sha256]  # one picture of each different labelling
        agrees = [_agree(item, other, boxes=boxes) for other in kinds]
        if kinds and not any(agrees):
            conflicts.append((kinds[0], item))
        if not any(agrees):
            kinds.append(item)
    return conflicts


def _agree(one: StoredImage, other: StoredImage, *, boxes: bool) -> bool:
    if not boxes:
        return one.source_image.label == other.source_image.label
    left = list(other.pixel_boxes.boxes)
    if len(left) != len(one.pixel_boxes.boxes):
        return False
    for box in one.pixel_boxes.boxes:
        same = next((candidate for candidate in left if _is_same(box, candidate)), None)
        if same is None:
            return False
        left.remove(same)
    return True


def _is_same(one: PixelBox, other: PixelBox) -> bool:
    (x1, y1, w1, h1), (x2, y2, w2, h2) = one.bbox, other.bbox
    width = min(x1 + w1, x2 + w2) - max(x1, x2)
    height = min(y1 + h1, y2 + h2) - max(y1, y2)
    common = max(width, 0.0) * max(height, 0.0)
    return one.label == other.label and common >= _SAME_IOU * (w1 * h1 + w2 * h2 - common)


def conflict_rejections(conflicts: Sequence[Pair], *, boxes: bool) -> list[Rejection]:
    """A line of failed.csv for each pair; the pictures themselves are not rejected."""
    return [
        Rejection(
            other.source_image.source,
            other.source_image.location,
            "conflict",
            f"identical to {_describe(one, boxes=boxes)}, but {_words(other, boxes=boxes)}",
            ignored=True,
        )
        for one, other in conflicts
    ]


def check_conflicts(conflicts: Sequence[Pair], *, boxes: bool, allowed: bool) -> None:
    """Stop where identical pictures contradict each other, or name them on stderr if that is allowed.

    Raises:
        UserError: there are such pairs, and `fetch.allow_conflicting_labels` is not set.
    """
    if not conflicts:
        return
    pairs = [f"{_describe(one, boxes=boxes)} = {_describe(other, boxes=boxes)}" for one, other in conflicts]
    what = "other boxes" if boxes else "another label"
    count = "1 picture is" if len(pairs) == 1 else f"{len(pairs):,} pictures are"
    line = f"{count} listed again with {what}: {list_some(pairs, 3)}"
    if allowed:
        print(f"fetch: {line}", file=sys.stderr)
        return
    raise UserError(
        f"params.yaml: fetch.allow_conflicting_labels: false: {line}; all are in {FETCH_FOLDER}/failed.csv; correct "
        "or delete one of each pair, or set it to true"
    )


def _describe(item: StoredImage, *, boxes: bool) -> str:
    return f"{item.source_image.location} ({_words(item, boxes=boxes)})"


def _words(item: StoredImage, *, boxes: bool) -> str:
    if not boxes:
        return str(item.source_image.label)
    found = [f"{box.label} {' '.join(f'{value:g}' for value in box.bbox)}" for box in item.pixel_boxes.boxes]
    return list_some(found, 3) or "no box"
