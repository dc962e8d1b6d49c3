"""The door, held against what PIL itself makes of the same bytes."""

import contextlib
import hashlib
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from headstart import door, jpeg
from headstart.door import PictureError, admit, pil_set_up
from pictures import ORIENTATION, decoded, difference, encoded, picture


@pytest.fixture(autouse=True)
def _pil() -> Iterator[None]:
    with pil_set_up():
        yield


def rejected(data: bytes, **options: int) -> tuple[str, str]:
    with pytest.raises(PictureError) as caught:
        admit(data, **options)
    return caught.value.kind, str(caught.value)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(("kind", "suffix"), [("PNG", ".png"), ("JPEG", ".jpg")])
def test_what_is_in_order_keeps_its_bytes(mode: str, kind: str, suffix: str) -> None:
    data = encoded(picture(mode=mode), kind)
    admitted = admit(data)
    assert (admitted.data, admitted.suffix, admitted.changes) == (data, suffix, ())
    assert admitted.sha256 == hashlib.sha256(data).hexdigest()
    assert (admitted.width, admitted.height) == (40, 24)


def test_a_name_says_nothing_about_the_format() -> None:
    assert admit(encoded(picture(), "PNG")).suffix == ".png"  # whatever the file was called


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture_as_pil_does(kind: str, orientation: int) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(picture(), kind, orientation, **options)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    admitted = admit(data)
    stored = decoded(admitted.data)
    assert stored.size == (admitted.width, admitted.height) == expected.size
    assert difference(stored, expected) <= (8 if kind == "JPEG" else 0)
    assert stored.getexif().get(ORIENTATION, 1) == 1, "it would be turned a second time"


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_rotation_that_the_source_knows_wins_over_exif(rotation: int, orientation: int) -> None:
    admitted = admit(encoded(picture(), "PNG", orientation), rotation=rotation)
    stored = decoded(admitted.data)
    assert difference(stored, picture().rotate(rotation, expand=True)) == 0
    assert stored.getexif().get(ORIENTATION, 1) == 1


@pytest.mark.parametrize("garbage", [b"garbage!", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08"])
def test_exif_that_cannot_be_read_turns_nothing(garbage: bytes) -> None:
    data = encoded(picture(), "JPEG", exif=b"Exif\0\0" + garbage)
    assert admit(data).data == data


def test_transparent_parts_become_white() -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 0], rgba[:, 2:, 3] = 200, 255  # red; the left half transparent
    for mode in ("RGBA", "LA"):
        pixels = np.asarray(decoded(admit(encoded(Image.fromarray(rgba).convert(mode))).data))
        assert (pixels[:, 0] == 255).all()
        assert (pixels[:, 3, 0] == np.asarray(Image.fromarray(rgba).convert(mode))[0, 3, 0]).all()
    assert admit(encoded(Image.fromarray(rgba))).changes == ("alpha",)


def test_palettes_transparent_colours_and_moving_pictures() -> None:
    first, second = picture(1), picture(2)
    gif = encoded(first.quantize(), "GIF", save_all=True, append_images=[second.quantize()])
    admitted = admit(gif)
    assert admitted.changes == ("gif", "first_frame", "palette")
    assert difference(decoded(admitted.data), Image.open(io.BytesIO(gif)).convert("RGB")) == 0
    assert admit(encoded(first.quantize(4))).changes == ("palette",)
    black = encoded(Image.new("RGB", (9, 9)), transparency=(0, 0, 0))
    assert decoded(admit(black).data).getpixel((0, 0)) == (255, 255, 255)


def test_cmyk_is_converted() -> None:
    data = encoded(picture(mode="CMYK"), "JPEG")
    admitted = admit(data)
    assert admitted.changes == ("cmyk",)
    assert difference(decoded(admitted.data), decoded(data).convert("RGB")) <= 8


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_cut(kind: str) -> None:
    values = np.linspace(0, 65535, 400).astype(np.uint16).reshape(20, 20)
    admitted = admit(encoded(Image.fromarray(values), kind))
    pixels = np.asarray(decoded(admitted.data))
    assert "depth" in admitted.changes
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
    admitted = admit(png)
    assert admitted.changes == ("depth",)
    assert decoded(admitted.data).getpixel((3, 3)) == (0x80, 0x40, 0x20)


def test_black_and_white_and_float_pictures() -> None:
    assert admit(encoded(picture(mode="1"))).changes == ("depth",)
    assert rejected(encoded(picture(mode="F"), "TIFF"))[0] == "depth"


@pytest.mark.parametrize("kind", ["WEBP", "BMP", "TIFF", "JPEG2000", "PPM", "AVIF"])
def test_other_formats_become_png(kind: str) -> None:
    data = encoded(picture(size=(48, 32)), kind)
    admitted = admit(data)
    assert admitted.suffix == ".png"
    assert kind.lower() in admitted.changes
    assert difference(decoded(admitted.data), decoded(data).convert("RGB")) == 0


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", "empty", "empty"),
        (b"just text", "not_a_picture", "just text"),
        (b"\n <!DOCTYPE html><html>", "web_page", "web page"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "not_a_picture", "HEIC"),
        (b"\x89PNG\r\n\x1a\n", "not_a_picture", "PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_a_picture", "not a picture"),
    ],
)
def test_what_is_no_picture_says_so(data: bytes, kind: str, words: str) -> None:
    found, reason = rejected(data)
    assert found == kind
    assert words in reason


@given(share=st.floats(0, 0.95), kind=st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF"]))
def test_a_cut_file_never_passes(share: float, kind: str) -> None:
    data = encoded(picture(size=(64, 64)), kind)
    rejected(data[: int(len(data) * share)])


def jpegs() -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 255, (70, 93, 3), np.uint8)
    forms: list[dict[str, Any]] = [
        {},
        {"progressive": True},
        {"restart_marker_blocks": 3},
        {"quality": 30, "optimize": True, "subsampling": 2},
    ]
    return [encoded(Image.fromarray(noise).convert(mode), "JPEG", **form) for mode in ("RGB", "L") for form in forms]


JPEGS = jpegs()


@settings(max_examples=400)
@given(
    data=st.sampled_from(JPEGS),
    changes=st.lists(st.tuples(st.integers(0, 10_000) | st.integers(0, 700), st.binary(max_size=3)), max_size=5),
    cut=st.floats(0, 1) | st.just(1.0),
    rest=st.sampled_from([b"", b"\xff\xd9", b"\xff", b"text"]),
)
def test_a_jpeg_passes_if_pil_decodes_all_of_it(
    data: bytes, changes: list[tuple[int, bytes]], cut: float, rest: bytes
) -> None:
    for place, new in changes:
        place %= len(data)
        data = data[:place] + new + data[place + len(new) :]
    data = data[: int(len(data) * cut)] + rest
    try:
        with Image.open(io.BytesIO(data), formats=door.FORMATS) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, IndexError, struct.error, TypeError, KeyError, ZeroDivisionError):
        rejected(data)
    else:
        admit(data)


@pytest.mark.parametrize("data", JPEGS)
def test_a_whole_jpeg_is_judged_by_a_small_part(data: bytes) -> None:
    skeleton = jpeg.skeleton(data)
    assert skeleton is not None
    assert len(skeleton) < len(data) / 2
    assert decoded(skeleton).size == decoded(data).size
    assert jpeg.skeleton(data[:-2]) is None, "it ends before its end"


@given(st.binary(max_size=200), st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"RIFF"]))
def test_any_bytes_are_a_picture_or_a_reason(rest: bytes, magic: bytes) -> None:
    with contextlib.suppress(PictureError):  # anything else would stop the stage
        admit(magic + rest)


@given(where=st.integers(0, 10_000), to=st.integers(1, 255))
def test_a_changed_byte_in_a_png_is_seen(where: int, to: int) -> None:
    data = bytearray(encoded(picture()))
    where = 8 + where % (len(data) - 20)
    data[where] ^= to
    rejected(bytes(data))


def test_bombs_and_crumbs() -> None:
    bomb = encoded(Image.new("1", (20_000, 6_000)))
    assert len(bomb) < 100_000
    assert rejected(bomb)[0] == "too_large"
    assert rejected(encoded(Image.new("1", (60_000, 6_000))))[0] == "too_large"
    assert rejected(encoded(picture(size=(1, 1))), min_side=8)[0] == "too_small"
    assert admit(encoded(picture(size=(8, 30))), min_side=8).width == 8


def test_too_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_BYTES", 10)
    assert rejected(encoded(picture()))[0] == "too_large"
