"""Picture files read as RGB, and small JPEGs of them for pages."""

import io
from pathlib import Path

from PIL import Image

from headstart.base.stored_picture import open_stored_picture

THUMBNAIL_SIDE = 256  # pixels of a thumbnail's longest side


def read_rgb(path: Path) -> Image.Image:
    """A picture file, decoded, as RGB.

    Raises:
        UserError: the file is missing or cannot be decoded.
    """
    with open_stored_picture(path) as picture:
        return picture.convert("RGB")


def make_thumbnail(path: Path) -> bytes:
    """A small JPEG of a picture file, its longest side 256 pixels.

    Raises:
        UserError: the file is missing or cannot be decoded.
    """
    small = read_rgb(path)
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return encode_jpeg(small)


def encode_jpeg(picture: Image.Image, quality: int = 85) -> bytes:
    """A picture as JPEG bytes; the default quality suits pages."""
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()
