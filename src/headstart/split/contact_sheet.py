"""The contact sheet of the split stage: near-duplicates that were merged, and the nearest pairs left apart."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from headstart.base.files import write_bytes
from headstart.base.stored_picture import open_stored_picture
from headstart.split.duplicate_search import SHOWN, DuplicateSearch, PicturePair
from headstart.split.near_duplicates import SURE_COSINE

COLUMNS = 4  # pairs in a row
SIDE = 150  # pixels of a picture
GAP = 4  # pixels between the pictures of a pair
MARGIN = 14  # pixels between pairs, and round the sheet
CAPTION = 22  # pixels below a pair
HEADING = 34  # pixels above a part
FRAME = "#e4e4e4"


def write_contact_sheet(search: DuplicateSearch, root: Path, path: Path) -> None:
    """Write the sheet as a JPEG: of the merged pairs the least alike ones, then the most alike ones left apart.

    Below each pair: the cosine of its fingerprints, its distance as a part of what is usual, and the bits of the hash.
    """
    merged = list(reversed(search.pairs))[:SHOWN]
    of = f"the {len(merged)} least alike of {len(search.pairs):,}" if len(merged) < len(search.pairs) else "all"
    parts = [
        (
            f"Near-duplicates, kept in one split ({of}, the least alike first): distance up to {search.limit:.2f}, or "
            f"cosine from {SURE_COSINE:.2f} and hashes near",
            merged,
        ),
        ("The nearest pairs that are none, free to be in different splits", list(search.apart)),
    ]
    none = "No pictures are near each other" if search.limit else "Only identical pictures were looked for"
    shown = [(title, pairs) for title, pairs in parts if pairs] or [(none, [])]
    heights = [HEADING + -(-len(pairs) // COLUMNS) * (SIDE + CAPTION + MARGIN) for _, pairs in shown]
    width = MARGIN + COLUMNS * (2 * SIDE + GAP + MARGIN)
    sheet = Pillow.new("RGB", (width, sum(heights) + MARGIN), "white")
    top = MARGIN
    for (title, pairs), height in zip(shown, heights, strict=True):
        _draw_part(sheet, title, pairs, top, root)
        top += height
    encoded = io.BytesIO()
    sheet.save(encoded, "JPEG", quality=88)
    write_bytes(path, encoded.getvalue())


def _draw_part(sheet: Pillow.Image, title: str, pairs: Sequence[PicturePair], top: int, root: Path) -> None:
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, top), title, fill="black", font=ImageFont.load_default(17))
    small = ImageFont.load_default(13)
    for number, pair in enumerate(pairs):
        left = MARGIN + number % COLUMNS * (2 * SIDE + GAP + MARGIN)
        y = top + HEADING + number // COLUMNS * (SIDE + CAPTION + MARGIN)
        for side, image in enumerate((pair.first, pair.second)):
            x = left + side * (SIDE + GAP)
            pen.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), fill=FRAME)
            with open_stored_picture(root / image.file_name) as opened:
                opened.draft("RGB", (SIDE, SIDE))
                picture = opened.convert("RGB")
            picture.thumbnail((SIDE, SIDE))
            sheet.paste(picture, (x + (SIDE - picture.width) // 2, y + (SIDE - picture.height) // 2))
        caption = f"cosine {pair.cosine:.2f}   distance {pair.distance:.2f}   {pair.bits} bits"
        pen.text((left, y + SIDE + 3), caption, fill="#333333", font=small)
