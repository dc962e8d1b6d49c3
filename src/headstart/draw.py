"""Boxes drawn on a picture, to be told apart on any ground and without colour: found ones solid, true ones dashed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

Corners = tuple[float, float, float, float]  # xmin, ymin, xmax, ymax

LEAST = 480  # pixels of the longest side; on a smaller picture a label would cover everything
_FOUND, _TRUE = ("#0072b2", "#ffffff"), ("#ffb000", "#000000")  # line and plate, and the letters on the plate
_PAPER = "#808080"  # around a picture that is thinner than its labels
_LETTERS = 24  # of a label, at most


@dataclass(frozen=True)
class Mark:
    """A box to draw: corners in pixels of the picture, and what is written at it; `strong` ones have thick lines."""

    corners: Corners
    text: str = ""
    true: bool = False
    strong: bool = False


def draw(picture: Pillow.Image, marks: Sequence[Mark], most: int | None = None) -> Pillow.Image:
    """The picture with the boxes on it, RGB; those that matter most come first in `marks`.

    A label that would cover another one is left out. Beside a picture so thin, or under one so flat, that labels would
    hide it, there is grey paper for them.

    Args:
        picture: upright.
        marks: the boxes.
        most: pixels of the longest side, at most; None: the picture keeps its size, if it has 480.
    """
    longest = max(picture.size)
    scale = (min(max(longest, LEAST), most) if most else max(longest, LEAST)) / longest
    width, height = (max(1, round(side * scale)) for side in picture.size)
    letters = max(13, round(max(width, height) / 50))
    font = _font(letters)
    plates = [_plate_size(mark.text, font) for mark in marks]
    wide, high = (max((plate[side] for plate in plates), default=0) for side in (0, 1))
    paper = (width + (wide if width < 2 * wide else 0), height + (high if height < 4 * high else 0))
    canvas = Pillow.new("RGB", paper, _PAPER)
    canvas.paste(picture.convert("RGB").resize((width, height), Pillow.Resampling.BICUBIC))
    pen = ImageDraw.Draw(canvas)
    line = max(2, letters // 6)
    scaled = [tuple(value * scale for value in mark.corners) for mark in marks]
    for mark, corners in reversed(list(zip(marks, scaled, strict=True))):
        _outline(pen, corners, line * (2 if mark.strong else 1), mark.true)
    taken: list[Corners] = []
    for mark, corners, plate in zip(marks, scaled, plates, strict=True):
        place = _free(corners, plate, (width, height), paper, taken, below=mark.true) if mark.text else None
        if place:
            taken.append(place)
            ground, ink = _TRUE if mark.true else _FOUND
            pen.rectangle(place, fill=ground)
            pen.text((place[0] + 3, place[1] + 1), shorten(mark.text), fill=ink, font=font)
    return canvas


def shorten(text: str) -> str:
    """At most 24 characters of a label, with its end, where numbered labels differ."""
    return text if len(text) <= _LETTERS else f"{text[:14]}…{text[-9:]}"


@cache
def _font(letters: int) -> ImageFont.FreeTypeFont:
    """DejaVu, which comes with matplotlib and has Latin, Greek, Cyrillic and more; Pillow's own has Latin alone."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), letters)


def _plate_size(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    if not text:
        return 0, 0
    ascent, descent = font.getmetrics()
    return round(font.getlength(shorten(text))) + 6, ascent + descent + 2


def _outline(pen: ImageDraw.ImageDraw, corners: Sequence[float], width: int, dashed: bool) -> None:
    """A line on a rim, black round the blue and white round the yellow: one of the two stands out on any ground."""
    colour, rim = (_TRUE[0], "#000000") if dashed else (_FOUND[0], "#ffffff")
    x1, y1, x2, y2 = corners
    sides = ((x1, y1, x2, y1), (x2, y1, x2, y2), (x1, y2, x2, y2), (x1, y1, x1, y2))
    dashes = [dash for side in sides for dash in (_dashes(side, 4 * width) if dashed else [side])]
    for thick, ink in ((width + 2, rim), (width, colour)):
        reach = (thick - 1) / 2
        for begin_x, begin_y, end_x, end_y in dashes:
            pen.rectangle((begin_x - reach, begin_y - reach, end_x + reach, end_y + reach), fill=ink)


def _dashes(side: Corners, length: int) -> list[Corners]:
    """Dashes with gaps as long, from corner to corner."""
    x1, y1, x2, y2 = side
    count = max(1, round(max(x2 - x1, y2 - y1) / length) // 2 * 2 + 1)
    step_x, step_y = (x2 - x1) / count, (y2 - y1) / count
    return [
        (x1 + step_x * n, y1 + step_y * n, x1 + step_x * (n + 1), y1 + step_y * (n + 1)) for n in range(0, count, 2)
    ]


def _free(
    corners: Sequence[float],
    plate: tuple[int, int],
    picture: tuple[int, int],
    paper: tuple[int, int],
    taken: Sequence[Corners],
    *,
    below: bool,
) -> Corners | None:
    """Where a label goes: on the paper if there is some, else over its box, under or in it; None: all is taken."""
    x1, y1, _, y2 = corners
    wide, high = plate
    x = picture[0] if paper[0] > picture[0] else x1
    places = [y2, y2 - high, y1 - high, y1] if below else [y1 - high, y1, y2, y2 - high]
    for y in [picture[1]] if paper[1] > picture[1] else places:
        left = min(max(x, 0), paper[0] - wide)
        top = min(max(y, 0), paper[1] - high)
        place = (left, top, left + wide, top + high)
        if not any(place[0] < t[2] and t[0] < place[2] and place[1] < t[3] and t[1] < place[3] for t in taken):
            return place
    return None
