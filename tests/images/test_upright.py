"""Upright 8-bit RGB from every orientation, mode and format, compared with what PIL itself makes of the same bytes."""

import io
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from headstart.images.decode import PictureError, configured_pil, open_upright, validate_picture
from pictures import ORIENTATION, decoded, difference, encoded, picture


@pytest.fixture(autouse=True)
def _pil() -> Iterator[None]:
    with configured_pil():
        yield


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotates_the_picture_as_pil_does(kind: str, orientation: int) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(picture(), kind, orientation, **options)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    validated = validate_picture(data)
    stored = decoded(validated.data)
    assert stored.size == (validated.width, validated.height) == expected.size
    assert difference(stored, expected) <= (8 if kind == "JPEG" else 0)
    assert stored.getexif().get(ORIENTATION, 1) == 1, "it would be rotated a second time"


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_rotation_from_the_source_takes_precedence_over_exif(rotation: int, orientation: int) -> None:
    validated = validate_picture(encoded(picture(), "PNG", orientation), rotation=rotation)
    stored = decoded(validated.data)
    assert difference(stored, picture().rotate(rotation, expand=True)) == 0
    assert stored.getexif().get(ORIENTATION, 1) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotation_from_the_source_is_of_the_pixels_as_a_tiff_stores_them(orientation: int) -> None:
    """Pillow makes a TIFF upright as it decodes it."""
    data = encoded(picture(), "TIFF", orientation)
    assert difference(decoded(validate_picture(data, rotation=90).data), picture().rotate(90, expand=True)) == 0
    validated = validate_picture(data)
    assert validated.orientation == orientation, "boxes are turned by it"
    assert ("rotated" in validated.conversions) == (orientation != 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("with_exif", [False, True])
def test_an_orientation_in_xmp_alone_turns_nothing(kind: str, with_exif: bool) -> None:
    """Beside EXIF of other things too, which Pillow reads as it opens a JPEG."""
    xmp = b'<x:xmpmeta xmlns:tiff="t"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    options: dict[str, Any] = {"xmp": xmp, "lossless": True}
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp.decode())
        options = {"pnginfo": text}
    elif kind == "TIFF":
        options = {"tiffinfo": {700: xmp}}
    if with_exif and kind != "TIFF":
        exif = Image.Exif()
        exif[0x010F] = "a maker"
        options["exif"] = exif
    data = encoded(picture(), kind, **options)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.getexif().get(ORIENTATION) == 6, "what Pillow takes from XMP"
    validated = validate_picture(data)
    assert "rotated" not in validated.conversions
    assert (validated.orientation, validated.width, validated.height) == (1, 40, 24)
    assert difference(decoded(validated.data), picture()) <= (12 if kind in ("JPEG", "AVIF") else 0)
    with open_upright(data) as upright:
        assert upright.size == (40, 24)


@pytest.mark.parametrize("orientation", [1, 6])
def test_exif_after_the_pixels_of_a_png_is_read_by_both_ways(orientation: int) -> None:
    """Some programs write eXIf as the last chunk."""
    data = encoded(picture(), "PNG", orientation)
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    late = data[:start] + data[end:-12] + data[start:end] + data[-12:]
    expected = picture() if orientation == 1 else picture().transpose(Image.Transpose.ROTATE_270)
    assert difference(decoded(validate_picture(late).data), expected) == 0
    with open_upright(late) as upright:
        assert difference(upright, expected) == 0


def test_a_bitmap_whose_alpha_is_empty_is_opaque() -> None:
    """32 bits with a mask for alpha (BITMAPV4HEADER), as programs write it that leave the fourth byte 0."""
    for alpha, expected in ((0, 100), (255, 100), (51, 224)):
        pixels = np.full((4, 4, 4), alpha, np.uint8)
        pixels[..., :3] = 100
        masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        header = struct.pack("<IiiHHIIiiII", 108, 4, -4, 1, 32, 3, 64, 0, 0, 0, 0) + masks + b"BGRs" + b"\0" * 48
        start = 14 + len(header)
        data = b"BM" + struct.pack("<IHHI", start + 64, 0, 0, start) + header + pixels.tobytes()
        assert decoded(data).mode == "RGBA"
        assert decoded(validate_picture(data).data).getpixel((1, 1)) == (expected,) * 3


@pytest.mark.parametrize("garbage", [b"garbage!", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08"])
def test_exif_that_cannot_be_read_rotates_nothing(garbage: bytes) -> None:
    data = encoded(picture(), "JPEG", exif=b"Exif\0\0" + garbage)
    assert validate_picture(data).data == data


def test_transparent_parts_become_white() -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 0], rgba[:, 2:, 3] = 200, 255  # red; the left half transparent
    for mode in ("RGBA", "LA"):
        pixels = np.asarray(decoded(validate_picture(encoded(Image.fromarray(rgba).convert(mode))).data))
        assert (pixels[:, 0] == 255).all()
        assert (pixels[:, 3, 0] == np.asarray(Image.fromarray(rgba).convert(mode))[0, 3, 0]).all()
    assert validate_picture(encoded(Image.fromarray(rgba))).conversions == ("alpha",)


def test_palettes_transparent_colours_and_animations() -> None:
    first, second = picture(1), picture(2)
    gif = encoded(first.quantize(), "GIF", save_all=True, append_images=[second.quantize()])
    validated = validate_picture(gif)
    assert validated.conversions == ("gif", "first_frame", "palette")
    assert difference(decoded(validated.data), Image.open(io.BytesIO(gif)).convert("RGB")) == 0
    assert validate_picture(encoded(first.quantize(4))).conversions == ("palette",)
    black = encoded(Image.new("RGB", (9, 9)), transparency=(0, 0, 0))
    assert decoded(validate_picture(black).data).getpixel((0, 0)) == (255, 255, 255)


def test_cmyk_is_converted() -> None:
    data = encoded(picture(mode="CMYK"), "JPEG")
    validated = validate_picture(data)
    assert validated.conversions == ("cmyk",)
    assert difference(decoded(validated.data), decoded(data).convert("RGB")) <= 8


def test_black_and_white_and_float_pictures() -> None:
    assert validate_picture(encoded(picture(mode="1"))).conversions == ("depth",)
    with pytest.raises(PictureError, match="pixels of 32 bits") as caught:
        validate_picture(encoded(picture(mode="F"), "TIFF"))
    assert caught.value.kind == "depth"


@pytest.mark.parametrize("kind", ["WEBP", "BMP", "TIFF", "JPEG2000", "PPM", "AVIF"])
def test_other_formats_become_png(kind: str) -> None:
    data = encoded(picture(size=(48, 32)), kind)
    validated = validate_picture(data)
    assert validated.suffix == ".png"
    assert kind.lower() in validated.conversions
    assert difference(decoded(validated.data), decoded(data).convert("RGB")) == 0
