"""Rows of a YOLO label file, and the box that a row means.

A row is a class number, then fractions of the picture: a box (centre x, y, width, height), optionally with confidence
and track id, as Ultralytics' `save_txt` appends them; a box and keypoints; or the points of an outline, of which an
oriented box is one. Only the whole set shows which of these a row of seven, nine, … numbers is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_FAR_OUTSIDE = 0.5  # a fraction further than that below 0 or above 1 is no fraction


class Row(NamedTuple):
    """One row: its line (from 1), its class number, and the numbers behind it."""

    line: int
    label: int
    values: tuple[float, ...]


def read_rows(path: Path) -> list[Row]:
    """The rows of one label file; empty lines are none.

    Raises:
        ValueError: the file cannot be read, or a line is no row of finite numbers after a class number.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text; save it again") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None
    return [_parse_row(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]


def _parse_row(line: int, text: str) -> Row:
    try:
        numbers = [float(cell) for cell in text.split()]
    except ValueError:
        numbers = []
    if not numbers or "_" in text:  # Python alone reads 1_0 as 10
        raise ValueError(f"line {line}: {text[:40]!r} is not a box: five numbers")
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"line {line}: {text[:40]!r} holds a number that is not finite")
    if numbers[0] != int(numbers[0]) or numbers[0] < 0:
        raise ValueError(f"line {line}: class {numbers[0]:g} is not a class number, 0 or more")
    return Row(line, int(numbers[0]), tuple(numbers[1:]))


@dataclass(frozen=True)
class Dialect:
    """How the rows of a set are to be read.

    Attributes:
        task: `detect`, `segment`, `pose` or `obb`; None: boxes and outlines, told apart by their numbers.
        keypoints: how many numbers of keypoints stand behind a box.
        tracker: seven numbers are a box with confidence and track id, not an outline of three points.
        turned: the sixth number is an angle: the four before it are no upright box.
    """

    task: str | None = None
    keypoints: int = 0
    tracker: bool = False
    turned: bool = False


def is_confidence(value: float) -> bool:
    """Whether a number behind a box may be a confidence."""
    return 0 <= value <= 1


def is_track_id(value: float) -> bool:
    """Whether a number behind a box may be a track id."""
    return value >= 0 and value == int(value)


def box_of(row: Row, dialect: Dialect) -> tuple[float, float, float, float]:
    """The corners `xmin, ymin, xmax, ymax` of the box that a row means, as fractions of the picture.

    Raises:
        ValueError: the row is not one of the dialect, or its numbers are no fractions.
    """
    count = len(row.values) + 1
    if dialect.task == "obb":
        if not 9 <= count <= 11:
            raise ValueError(f"{count} numbers are not an oriented box: a class and four corners")
        _check_trailing(row.values[8:])
        return _box_around(row.values[:8])
    with_keypoints = 5 + dialect.keypoints
    if count == 5:
        return _box_by_centre(row.values)
    if with_keypoints <= count <= with_keypoints + (dialect.tracker or dialect.keypoints > 0) + 1:
        trailing = row.values[with_keypoints - 1 :]
        if dialect.task == "segment":
            raise ValueError(f"{count} numbers are not an outline: a class and two for each point")
        if dialect.turned and count == 6 and trailing[0] != 0:
            raise ValueError(f"6 numbers, the last {trailing[0]:g}: in this set it is an angle; write the four corners")
        if dialect.tracker and count == 6 and not is_confidence(trailing[0]):  # a track id stands behind a confidence
            raise ValueError(f"{trailing[0]:g} is not a confidence, 0 to 1")
        _check_trailing(trailing)
        return _box_by_centre(row.values)
    if dialect.task == "pose":
        raise ValueError(f"{count} numbers are neither a box (5) nor a box with keypoints ({with_keypoints})")
    if dialect.task == "detect":
        raise ValueError(f"{count} numbers are not a box: 5, 6 with a confidence, 7 with a track id")
    if count >= 7 and count % 2:
        return _box_around(row.values)
    hint = "; for a box with keypoints, kpt_shape must be in data.yaml" if count > 7 else ""
    hint += "; for an oriented box with a confidence, say `task: obb`" if count in (10, 11) else ""
    raise ValueError(f"{count} numbers are neither a box nor a polygon{hint}")


def _check_trailing(values: Sequence[float]) -> None:
    """A confidence, a track id, or both in this order.

    Raises:
        ValueError: a number is neither.
    """
    if len(values) == 1 and not is_confidence(values[0]) and not is_track_id(values[0]):
        raise ValueError(f"{values[0]:g} is neither a confidence, 0 to 1, nor a track id")
    if len(values) == 2 and not is_confidence(values[0]):
        raise ValueError(f"{values[0]:g} is not a confidence, 0 to 1")
    if len(values) == 2 and not is_track_id(values[1]):
        raise ValueError(f"{values[1]:g} is not a track id, a whole number")


def _check_fractions(values: Sequence[float]) -> None:
    outside = next((value for value in values if not -_FAR_OUTSIDE <= value <= 1 + _FAR_OUTSIDE), None)
    if outside is not None:
        raise ValueError(f"{outside:g} is not a fraction of the picture, 0 to 1; pixels must be divided by its size")


def _box_by_centre(values: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = values[:4]
    _check_fractions(values[:4])
    if width <= 0 or height <= 0:
        raise ValueError(f"a box of width {width:g} and height {height:g} has no area")
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _box_around(values: Sequence[float]) -> tuple[float, float, float, float]:
    _check_fractions(values)
    corners = min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    if corners[0] == corners[2] or corners[1] == corners[3]:
        raise ValueError("an outline whose points are on one line has no area")
    return corners
