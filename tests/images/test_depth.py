"""Pictures of 9 to 16 bits: scaled by what the file says; none becomes black, or keeps a transparent colour, unseen."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from headstart.images.decode import PictureError, configured_pil, open_upright, validate_picture
from pictures import decoded, encoded

GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6  # colour types of PNG


@pytest.fixture(autouse=True)
def _pil() -> Iterator[None]:
    with configured_pil():
        yield


def png(
    samples: npt.NDArray[np.generic], colour_type: int = GREY, bits: bytes = b"", transparent: bytes = b""
) -> bytes:
    """A 16-bit PNG with an sBIT and a tRNS chunk, if given; each row with another filter."""
    height, width = samples.shape[:2]
    rows, previous = [], b"\0" * (samples[0].size * 2)
    for number, row in enumerate(samples):
        raw = row.astype(">u2").tobytes()
        up = number % 2
        rows.append(bytes([2 * up]) + bytes((a - b * up) % 256 for a, b in zip(raw, previous, strict=True)))
        previous = raw
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"sBIT", bits), (b"tRNS", transparent), (b"IDAT", zlib.compress(b"".join(rows)))]
    chunks = [(name, body) for name, body in chunks if body] + [(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def ramp(highest: int, shape: tuple[int, ...] = (20, 20)) -> npt.NDArray[np.uint16]:
    return np.linspace(0, highest, int(np.prod(shape))).astype(np.uint16).reshape(shape)


def stored(data: bytes) -> npt.NDArray[np.int64]:
    """The pixels that fetch stores, which are those that a prediction sees."""
    pixels = np.asarray(decoded(validate_picture(data).data)).astype(np.int64)
    with open_upright(data) as upright:
        assert np.array_equal(np.asarray(upright), pixels)
    return pixels


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_cut(kind: str) -> None:
    values = ramp(65535)
    data = encoded(Image.fromarray(values), kind)
    pixels = stored(data)
    assert "depth" in validate_picture(data).conversions
    assert "dim" not in validate_picture(data).conversions
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert np.abs(pixels[..., 0] - values / 257).max() <= 0.5


def test_sixteen_bit_colour_is_converted() -> None:
    colour = np.array([0x8000, 0x4000, 0x2000], np.uint16)
    data = png(np.broadcast_to(colour, (8, 8, 3)), RGB)
    assert validate_picture(data).conversions == ("depth",)
    assert tuple(stored(data)[3, 3]) == (0x80, 0x40, 0x20)


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
def test_significant_bits_that_are_the_lowest_are_scaled_by_them(bits: int) -> None:
    values = ramp(2**bits - 1)
    assert np.abs(stored(png(values, bits=bytes([bits])))[..., 0] - values * (255 / (2**bits - 1))).max() <= 0.5


@pytest.mark.parametrize("bits", [10, 12])
def test_significant_bits_that_are_the_highest_as_the_specification_has_them(bits: int) -> None:
    values = ramp(2**bits - 1)
    for filled in (values << (16 - bits), np.round(values.astype(float) * 65535 / (2**bits - 1)).astype(np.uint16)):
        assert np.abs(stored(png(filled, bits=bytes([bits])))[..., 0] - filled / 257).max() <= 0.5


@pytest.mark.parametrize(
    ("colour_type", "channels", "bits"),
    [(GREY_ALPHA, 2, b"\x0c\x0c"), (RGB, 3, b"\x0c\x0c\x0c"), (RGBA, 4, b"\x0c\x0c\x0c\x0c")],
)
def test_significant_bits_of_colours(colour_type: int, channels: int, bits: bytes) -> None:
    values = ramp(4095, (20, 20, channels))
    if channels in (2, 4):
        values[..., -1] = 4095
    colours = values[..., :-1] if channels in (2, 4) else values
    assert np.abs(stored(png(values, colour_type, bits)) - colours * (255 / 4095)).max() <= 0.5


@pytest.mark.parametrize("highest", [255, 1023, 4095])
@pytest.mark.parametrize("colour_type", [GREY, RGB, GREY_ALPHA, RGBA])
def test_few_bits_in_a_file_that_does_not_say_so_are_no_black_picture(highest: int, colour_type: int) -> None:
    channels = {GREY: 1, RGB: 3, GREY_ALPHA: 2, RGBA: 4}[colour_type]
    values = ramp(highest, (20, 20, channels))
    if channels in (2, 4):
        values[..., -1] = 65535
    for data in (
        png(values, colour_type),
        *([encoded(Image.fromarray(values[..., 0]), "TIFF")] if channels == 1 else []),
    ):
        with pytest.raises(
            PictureError, match=r"16-bit pixels of which none is above .*convert it to 8 bits, or .*sBIT"
        ) as caught:
            validate_picture(data)
        assert caught.value.kind == "depth"
        with pytest.raises(PictureError, match="nearly black"), open_upright(data):
            pass


def test_a_black_picture_is_black_and_one_of_14_bits_is_counted_as_dim() -> None:
    assert stored(png(ramp(0))).max() == 0
    assert stored(png(ramp(0, (9, 9, 3)), RGB)).max() == 0
    assert validate_picture(png(ramp(16200))).conversions == ("depth", "dim")
    assert validate_picture(png(ramp(2**14 - 1))).conversions == ("depth", "dim")


def test_twelve_bits_packed_in_a_tiff() -> None:
    """Two pixels in three bytes, which Pillow reads as 0 to 4095."""
    packed = b"\x00\x0f\xff" + b"\x80\x08\x00"  # 0, 4095, 2048, 2048
    entries = [(256, 4, 2), (257, 4, 2), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 4, 2)]
    entries += [(279, 4, 6)]
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, v) for tag, kind, v in entries
    )
    data = b"II*\0" + struct.pack("<I", 14) + packed + directory + b"\0\0\0\0"
    assert stored(data)[..., 0].tolist() == [[0, 255], [128, 128]]


def test_a_tiff_of_16_bits_whose_white_is_0() -> None:
    values = ramp(65535)
    data = encoded(Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    assert np.abs(stored(data)[..., 0] - (255 - values / 257)).max() <= 0.5


def test_a_transparent_grey_of_16_bits_becomes_white() -> None:
    values = ramp(60000)
    data = png(values, transparent=int(values[7, 7]).to_bytes(2))
    pixels = stored(data)
    assert tuple(pixels[7, 7]) == (255, 255, 255)
    others = values != values[7, 7]
    assert np.abs(pixels[..., 0] - values / 257)[others].max() <= 0.5
    assert validate_picture(data).conversions == ("alpha", "depth")


def test_a_transparent_colour_of_16_bits_becomes_white_and_no_similar_one() -> None:
    values = np.full((4, 4, 3), 0x8012, np.uint16)
    values[0, 0] = 0x8034
    pixels = stored(png(values, RGB, transparent=b"\x80\x34" * 3))
    assert tuple(pixels[0, 0]) == (255, 255, 255)
    assert (pixels.reshape(-1, 3)[1:] == 0x80).all()


def test_a_grey_map_says_its_white() -> None:
    values = ramp(4095)
    data = b"P5 20 20 4095\n" + values.astype(">u2").tobytes()
    assert np.abs(stored(data)[..., 0] - values * (255 / 4095)).max() <= 0.51
    assert stored(encoded(Image.fromarray(ramp(65535)), "PPM")).max() == 255


def test_a_black_drawing_on_nothing() -> None:
    values = np.zeros((4, 4, 2), np.uint16)
    values[0, 0, 1] = 65535
    pixels = stored(png(values, GREY_ALPHA))
    assert pixels[0, 0].max() == 0
    assert pixels[1:].min() == 255


def test_alpha_of_16_bits() -> None:
    values = np.full((4, 4, 4), 0x4000, np.uint16)
    values[0, 0, 3] = 0
    values[1, 1, 3] = 65535
    pixels = stored(png(values, RGBA))
    assert tuple(pixels[0, 0]) == (255, 255, 255)
    assert tuple(pixels[1, 1]) == (64, 64, 64)
    with Image.open(io.BytesIO(png(values, RGBA))) as image:
        assert image.mode == "RGBA"
