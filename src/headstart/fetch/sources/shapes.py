"""The upright box round a shape: an outline, a turned rectangle, an ellipse, a run-length encoded mask."""

import math
from collections.abc import Sequence
from itertools import accumulate

Corners = tuple[float, float, float, float]  # xmin, ymin, xmax, ymax


def read_number(value: object) -> float:
    """A finite number of a file, also where it is written as text.

    Raises:
        ValueError: it is none; `true` is none either.
    """
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    raise ValueError(f"{str(value)[:40]!r} is not a finite number")


def box_round_points(points: Sequence[tuple[float, float]]) -> Corners:
    """The box round points; there is at least one."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def box_round_rotated(corners: Corners, degrees: float) -> Corners:
    """The box round a rectangle that is turned about its centre; clockwise or not makes no difference."""
    if degrees % 360 == 0:
        return corners
    xmin, ymin, xmax, ymax = corners
    cosine, sine = _turn(degrees)
    half_width, half_height = (xmax - xmin) / 2, (ymax - ymin) / 2
    return _box_about(
        ((xmin + xmax) / 2, (ymin + ymax) / 2),
        half_width * cosine + half_height * sine,
        half_width * sine + half_height * cosine,
    )


def box_round_ellipse(centre: tuple[float, float], rx: float, ry: float, degrees: float) -> Corners:
    """The box round an ellipse with these half axes that is turned about its centre."""
    cosine, sine = _turn(degrees)
    return _box_about(centre, math.hypot(rx * cosine, ry * sine), math.hypot(rx * sine, ry * cosine))


def box_round_runs(runs: Sequence[int], major: int, minor: int) -> tuple[int, int, int, int]:
    """The box round a mask, exact to the pixel.

    Args:
        runs: lengths of runs of 0, 1, 0, 1, …, along lines of `minor` pixels.
        major: number of lines.
        minor: pixels of a line.

    Returns:
        First and last + 1 of the lines, first and last + 1 within a line: `(line, pixel, line, pixel)`.

    Raises:
        ValueError: the runs do not fill the mask, or none of it is 1.
    """
    if min(major, minor) < 1 or any(run < 0 for run in runs) or sum(runs) != major * minor:
        raise ValueError(f"its mask is not one of {major} x {minor} pixels")
    ends = list(accumulate(runs))
    ones = [(ends[n] - runs[n], ends[n] - 1) for n in range(1, len(runs), 2) if runs[n]]  # first and last pixel
    if not ones:
        raise ValueError("its mask is empty")
    whole_lines = any(first // minor != last // minor for first, last in ones)  # the run reaches the line's end
    first = 0 if whole_lines else min(first % minor for first, _ in ones)
    end = minor if whole_lines else 1 + max(last % minor for _, last in ones)
    return ones[0][0] // minor, first, 1 + ones[-1][1] // minor, end


def decode_coco_counts(text: str) -> list[int]:
    """The runs of a compressed COCO mask: numbers in groups of 5 bits, from the third on as differences.

    pycocotools reads beyond the end of such a text where it was cut short, so it is decoded here.

    Raises:
        ValueError: it is cut short, or has a character that is none of the format's.
    """
    runs: list[int] = []
    number = shift = 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64:
            raise ValueError(f"its mask has the character {character!r}")
        number |= (group & 0x1F) << shift
        shift += 5
        if group & 0x20:  # more groups of this number follow
            continue
        if group & 0x10:  # negative
            number -= 1 << shift
        runs.append(number + runs[-2] if len(runs) > 2 else number)
        number = shift = 0
    if shift:
        raise ValueError("its mask is cut short")
    return runs


def _turn(degrees: float) -> tuple[float, float]:
    angle = math.radians(degrees % 180)
    # At right angles cosine and sine are exact: 1e-16 of a side would make another box.
    return (0.0, 1.0) if degrees % 180 == 90 else (abs(math.cos(angle)), abs(math.sin(angle)))


def _box_about(centre: tuple[float, float], half_width: float, half_height: float) -> Corners:
    x, y = centre
    return x - half_width, y - half_height, x + half_width, y + half_height
