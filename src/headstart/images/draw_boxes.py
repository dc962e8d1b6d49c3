"""Boxes drawn on a picture, visible on any background and without colour: predictions solid, ground truth dashed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

XyxyBox = tuple[float, float, float, float]  # xmin, ymin, xmax, ymax

MIN_LONGEST_SIDE = 480  # pixels; a smaller picture is enlarged, or a label would cover all of it
# Of the outline and the label's background, and of its letters. Blue and yellow of Okabe and Ito's palette.
_PREDICTION_COLOURS = ("#0072b2", "#ffffff")
_GROUND_TRUTH_COLOURS = ("#ffb000", "#000000")
_PADDING_COLOUR = "#808080"  # around a picture that is narrower than its labels
_MAX_LABEL_CHARS = 24


@dataclass(frozen=True)
class DrawnBox:
    """A box to draw: corners in pixels of the picture, the text of its label; highlighted ones have thick lines."""

    corners: XyxyBox
    text: str = ""
    ground_truth: bool = False
    highlighted: bool = False


def draw_boxes(picture: Image.Image, boxes: Sequence[DrawnBox], longest_side: int | None = None) -> Image.Image:
    """A copy of the picture with the boxes drawn on it, RGB.

    A label that would cover another one is left out. A picture too narrow or too low for its labels gets grey padding,
    on the right or below, where they are written.

    Args:
        picture: upright.
        boxes: the most important first: they are drawn on top, and their labels are placed first.
        longest_side: the result's longest side in pixels, at most; None: the picture keeps its size, if that is
            MIN_LONGEST_SIDE or more.
    """
    longest = max(picture.size)
    enlarged = max(longest, MIN_LONGEST_SIDE)
    scale = (min(enlarged, longest_side) if longest_side else enlarged) / longest
    width, height = (max(1, round(side * scale)) for side in picture.size)
    font_size = max(13, round(max(width, height) / 50))
    font = _load_font(font_size)
    label_sizes = [_label_size(box.text, font) for box in boxes]
    widest, highest = (max((size[axis] for size in label_sizes), default=0) for axis in (0, 1))
    canvas_size = (width + (widest if width < 2 * widest else 0), height + (highest if height < 4 * highest else 0))
    canvas = Image.new("RGB", canvas_size, _PADDING_COLOUR)
    canvas.paste(picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))
    pen = ImageDraw.Draw(canvas)
    line_width = max(2, font_size // 6)
    scaled = [tuple(value * scale for value in box.corners) for box in boxes]
    for box, corners in reversed(list(zip(boxes, scaled, strict=True))):
        _draw_outline(pen, corners, line_width * (2 if box.highlighted else 1), box.ground_truth)
    occupied: list[XyxyBox] = []
    for box, corners, size in zip(boxes, scaled, label_sizes, strict=True):
        area = (
            _find_label_area(corners, size, (width, height), canvas_size, occupied, below=box.ground_truth)
            if box.text
            else None
        )
        if area:
            occupied.append(area)
            background, ink = _GROUND_TRUTH_COLOURS if box.ground_truth else _PREDICTION_COLOURS
            pen.rectangle(area, fill=background)
            pen.text((area[0] + 3, area[1] + 1), shorten_label(box.text), fill=ink, font=font)
    return canvas


def shorten_label(text: str) -> str:
    """At most 24 characters of a label, its end included, where numbered labels differ."""
    return text if len(text) <= _MAX_LABEL_CHARS else f"{text[:14]}…{text[-9:]}"


@cache
def _load_font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has Latin, Greek, Cyrillic and more; PIL's own has Latin alone."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)


def _label_size(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """Width and height of a label with its background, in pixels."""
    if not text:
        return 0, 0
    ascent, descent = font.getmetrics()
    return round(font.getlength(shorten_label(text))) + 6, ascent + descent + 2


def _draw_outline(pen: ImageDraw.ImageDraw, corners: Sequence[float], width: int, dashed: bool) -> None:
    """A line with an edge, black around yellow and white around blue: one of the two contrasts with any background."""
    colour, edge_colour = (_GROUND_TRUTH_COLOURS[0], "#000000") if dashed else (_PREDICTION_COLOURS[0], "#ffffff")
    x1, y1, x2, y2 = corners
    sides = ((x1, y1, x2, y1), (x2, y1, x2, y2), (x1, y2, x2, y2), (x1, y1, x1, y2))
    dashes = [dash for side in sides for dash in (_split_into_dashes(side, 4 * width) if dashed else [side])]
    for thickness, fill in ((width + 2, edge_colour), (width, colour)):
        margin = (thickness - 1) / 2
        for begin_x, begin_y, end_x, end_y in dashes:
            pen.rectangle((begin_x - margin, begin_y - margin, end_x + margin, end_y + margin), fill=fill)


def _split_into_dashes(side: XyxyBox, length: int) -> list[XyxyBox]:
    """Dashes of about this length with gaps as long; the first and the last reach the corners."""
    x1, y1, x2, y2 = side
    count = max(1, round(max(x2 - x1, y2 - y1) / length) // 2 * 2 + 1)
    step_x, step_y = (x2 - x1) / count, (y2 - y1) / count
    return [
        (x1 + step_x * n, y1 + step_y * n, x1 + step_x * (n + 1), y1 + step_y * (n + 1)) for n in range(0, count, 2)
    ]


def _find_label_area(
    corners: Sequence[float],
    size: tuple[int, int],
    picture_size: tuple[int, int],
    canvas_size: tuple[int, int],
    occupied: Sequence[XyxyBox],
    *,
    below: bool,
) -> XyxyBox | None:
    """Where a label is written: on the padding if there is some, else above its box, below or inside it.

    None where every position overlaps another label.
    """
    x1, y1, _, y2 = corners
    width, height = size
    x = picture_size[0] if canvas_size[0] > picture_size[0] else x1
    tops = [y2, y2 - height, y1 - height, y1] if below else [y1 - height, y1, y2, y2 - height]
    for y in [picture_size[1]] if canvas_size[1] > picture_size[1] else tops:
        left = min(max(x, 0), canvas_size[0] - width)
        top = min(max(y, 0), canvas_size[1] - height)
        area = (left, top, left + width, top + height)
        if not any(area[0] < o[2] and o[0] < area[2] and area[1] < o[3] and o[1] < area[3] for o in occupied):
            return area
    return None
