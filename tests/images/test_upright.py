"""Upright 8-bit RGB from every orientation, mode and format, compared with what PIL itself makes of the same bytes."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image, ImageOps

from headstart.images.decode import PictureError, configured_pil, validate_picture
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


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_cut(kind: str) -> None:
    values = np.linspace(0, 65535, 400).astype(np.uint16).reshape(20, 20)
    validated = validate_picture(encoded(Image.fromarray(values), kind))
    pixels = np.asarray(decoded(validated.data))
    assert "depth" in validated.conversions
    assert pixels.min() == 0
    assert pixels.max() == 255
    assert np.abs(pixels[..., 0] - values / 257).max() <= 0.5


def test_sixteen_bit_colour_is_converted() -> None:
    row = b"\0" + b"\x80\x00\x40\x00\x20\x00" * 8
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(row * 8)), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    validated = validate_picture(png)
    assert validated.conversions == ("depth",)
    assert decoded(validated.data).getpixel((3, 3)) == (0x80, 0x40, 0x20)


def test_black_and_white_and_float_pictures() -> None:
    assert validate_picture(encoded(picture(mode="1"))).conversions == ("depth",)
    with pytest.raises(PictureError, match="32-bit pixels") as caught:
        validate_picture(encoded(picture(mode="F"), "TIFF"))
    assert caught.value.kind == "depth"


@pytest.mark.parametrize("kind", ["WEBP", "BMP", "TIFF", "JPEG2000", "PPM", "AVIF"])
def test_other_formats_become_png(kind: str) -> None:
    data = encoded(picture(size=(48, 32)), kind)
    validated = validate_picture(data)
    assert validated.suffix == ".png"
    assert kind.lower() in validated.conversions
    assert difference(decoded(validated.data), decoded(data).convert("RGB")) == 0
