"""What becomes of the pixels of odd picture files, whatever source lists them."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fetch.kinds import Kinds, boxes_and_rejections
from headstart.images.decode import PictureError, ValidatedPicture, configured_pil, validate_picture
from images.test_depth import RGB, png, ramp
from pictures import decoded, encoded, picture, put

KINDS = Kinds("any")
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>'


def reason(data: bytes) -> str:
    """Why it is rejected."""
    with configured_pil(), pytest.raises(PictureError) as caught:
        validate_picture(data)
    return str(caught.value)


def valid(data: bytes) -> ValidatedPicture:
    with configured_pil():
        return validate_picture(data)


def pixels(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(decoded(valid(data).data).convert("RGB"))


@KINDS.row(
    "16 bits of which 12 or fewer are used", "scaled where PNG's sBIT or TIFF's tags say how many; else rejected"
)
def _few_bits(_: Path) -> None:
    samples = ramp(4095)
    expected = np.round(samples * (255 / 4095)).astype(np.uint8)
    assert np.abs(pixels(png(samples, bits=b"\x0c"))[..., 0].astype(int) - expected).max() <= 1
    assert np.abs(pixels(png(samples << 4, bits=b"\x0c"))[..., 0].astype(int) - expected).max() <= 1
    assert "none is above 4,095" in reason(png(samples))
    assert "none is above 1,023" in reason(png(ramp(1023, (9, 9, 3)), RGB))


@KINDS.row("16 bits of which none is above a quarter of white", "used, and counted as `dim`")
def _dim(_: Path) -> None:
    assert valid(png(ramp(2**14 - 1))).conversions == ("depth", "dim")
    assert valid(png(ramp(2**16 - 1))).conversions == ("depth",)


@KINDS.row("a transparent colour, or alpha", "white; the alpha of a BMP that is 0 everywhere counts for nothing")
def _transparent(_: Path) -> None:
    samples = ramp(65535)
    assert pixels(png(samples, transparent=samples[3, 4].tobytes()[::-1]))[3, 4].tolist() == [255] * 3
    colours = picture(size=(12, 8))
    colours.putalpha(0)
    assert (pixels(encoded(colours)) == 255).all()
    assert (pixels(encoded(colours, "BMP")) == np.asarray(colours.convert("RGB"))).all()


@KINDS.row("an orientation in EXIF; in XMP alone", "turned upright, boxes too; nothing")
def _orientation(_: Path) -> None:
    image = picture(size=(40, 24))
    assert valid(encoded(image, "JPEG", 6)).conversions == ("rotated",)
    assert (valid(encoded(image, "PNG", 6)).width, valid(encoded(image, "PNG", 6)).height) == (24, 40)
    assert valid(encoded(image, "JPEG", xmp=XMP)).conversions == ()


@KINDS.row("HEIC, without `pip install -e '.[heic]'`", "rejected, with that command")
def _heic(_: Path) -> None:
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pillow_heif", None)
        assert ".venv/bin/pip install -e '.[heic]'" in reason(data)


@KINDS.row("an animation; CMYK, a palette, 1 bit, WebP, TIFF, BMP", "its first frame; 8-bit RGB or grey")
def _converted(_: Path) -> None:
    first, second = (picture(seed, (12, 8)) for seed in (1, 2))
    data = encoded(first, "GIF", save_all=True, append_images=[second])
    assert "first_frame" in valid(data).conversions
    assert np.abs(pixels(data).astype(int) - np.asarray(first)).max() <= 64  # GIF has 256 colours
    modes: dict[str, Callable[[Image.Image], bytes]] = {
        "cmyk": lambda image: encoded(image.convert("CMYK"), "JPEG"),
        "palette": lambda image: encoded(image.quantize(16)),
        "depth": lambda image: encoded(image.convert("1")),
        "webp": lambda image: encoded(image, "WEBP"),
        "tiff": lambda image: encoded(image, "TIFF"),
        "bmp": lambda image: encoded(image, "BMP"),
    }
    for conversion, encode in modes.items():
        assert valid(encode(first)).conversions == (conversion,)


@KINDS.row("half a file, an empty one, a web page, more than 100 megapixels, below `min_side`", "rejected")
def _no_pictures(root: Path) -> None:
    contents = {
        "half": encoded(picture(3, (90, 60)))[:-40],
        "empty": b"",
        "page": b"<!DOCTYPE html><html>404</html>",
        "bomb": encoded(Image.new("1", (20_000, 6_000))),
    }
    for name, data in contents.items():
        put(root / f"data/cat/{name}.png", data)
    kept, lost = boxes_and_rejections(root, {"folder": "data"}, "classify")
    assert kept == {}
    assert sorted(lost) == sorted(f"data/cat/{name}.png" for name in contents)
    with configured_pil(), pytest.raises(PictureError, match="a side below min_side 8"):
        validate_picture(encoded(picture(size=(40, 7))), min_side=8)
