"""Pictures of 9 to 16 bits a channel as 8 bits: white is what the file says, and none becomes black unseen."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

Samples = npt.NDArray[np.uint16]

PNG_GREY_ALPHA = 4  # colour type in IHDR
BITS_PER_SAMPLE_TAG, PHOTOMETRIC_TAG = 258, 262  # of TIFF
# A 16-bit picture without a value above it is nearly black if read as 16 bits. Far more often it holds 12 bits or less.
DARK = 4095
DIM = 64  # of 8 bits: a picture of 14 bits, or one of 16 bits that is dim; it is used, and counted in the summary


class DarkPictureError(Exception):
    """A 16-bit picture that would become nearly black; the message is the reason."""


def has_16bit_samples(image: Image.Image, data: bytes) -> bool:
    """Whether the file has 9 to 16 bits a channel, whatever Pillow makes of them; `image` need not be decoded."""
    if image.format == "PNG":
        return data[24] == 16  # the bit depth in IHDR
    if image.format == "TIFF":
        return 8 < _tiff_bits(image) <= 16
    return image.mode.startswith("I;16") or (image.format == "PPM" and image.mode == "I")


def grey_to_8bit(image: Image.Image, data: bytes) -> Image.Image:
    """A decoded grey picture of 9 to 16 bits as RGB; a transparent colour becomes white.

    Raises:
        DarkPictureError: it would become nearly black.
    """
    samples = np.asarray(image).astype(np.uint16)
    bits = _significant_bits(image, data)
    grey = _scale_to_8bit(samples, bits, from_lowest=image.format == "TIFF" and bits < 16)
    # Pillow inverts 8 bits of which 0 is white, but not 16.
    if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(PHOTOMETRIC_TAG) == 0:
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[samples == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def colour_to_8bit(image: Image.Image, data: bytes) -> Image.Image:
    """A decoded colour picture, or one with alpha, of 9 to 16 bits: the same mode in 8 bits.

    Pillow keeps the high byte of each sample. All of it is read again where that is not enough: where the file has
    fewer significant bits, or a transparent colour.

    Raises:
        DarkPictureError: it would become nearly black.
    """
    bits = _significant_bits(image, data)
    transparent = image.info.pop("transparency", None)
    highest = np.asarray(image.convert("RGB")).max()
    is_dark = highest <= DARK >> 8
    if image.format == "PNG" and (is_dark or bits < 16 or transparent is not None):
        return _read_png_colours(data, image.mode, bits, transparent)
    if is_dark and highest > 0:
        raise DarkPictureError(_dark_reason(int(highest) * 256 + 255))
    return image


def _read_png_colours(data: bytes, mode: str, bits: int, transparent: object) -> Image.Image:
    samples = _read_png_samples(data, mode)
    channels = samples.shape[2]
    colours = _scale_to_8bit(samples[..., : channels - (channels in (2, 4))], bits)
    if colours.shape[2] == 1:
        colours = colours.repeat(3, axis=2)
    if channels in (2, 4):
        alpha = samples[..., -1:]
        white = 2**bits - 1 if alpha.max() < 2**bits else 65535
        return Image.fromarray(np.concatenate([colours, np.round(alpha * (255 / white)).astype(np.uint8)], axis=2))
    if isinstance(transparent, tuple):
        colours[(samples == np.array(transparent)).all(axis=2)] = 255
    return Image.fromarray(colours)


def is_dim(image: Image.Image) -> bool:
    """Whether no pixel of an RGB picture is brighter than a quarter of white, and it is not black."""
    brightest = max(high for _, high in image.getextrema())  # type: ignore[misc]
    return 0 < brightest <= DIM


def _scale_to_8bit(samples: Samples, bits: int, *, from_lowest: bool = False) -> npt.NDArray[np.uint8]:
    """Samples of this many significant bits as 8 bits; `from_lowest`: they are known to be the lowest of the 16.

    By the PNG specification they fill the 16 bits from the highest on; many programs write them from the lowest on.
    """
    highest = int(samples.max())
    if from_lowest or (bits < 16 and highest < 2**bits and not _fills_from_the_highest(samples, bits)):
        white = 2**bits - 1
    elif 0 < highest <= DARK:
        raise DarkPictureError(_dark_reason(highest))
    else:
        white = 65535
    scaled: npt.NDArray[np.uint8] = ((samples.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
    return scaled


def _fills_from_the_highest(samples: Samples, bits: int) -> bool:
    """Whether the low bits of all samples are 0, or a repetition of their high bits."""
    shift = 16 - bits
    low, value = samples & (2**shift - 1), samples >> shift
    repeated = (value.astype(np.uint32) * 65535 // (2**bits - 1)) & (2**shift - 1)
    return bool((low == 0).all() or (low == repeated).all())


def _dark_reason(highest: int) -> str:
    return (
        f"16-bit pixels of which none is above {highest:,}: as 16 bits it is nearly black, and how many bits it holds "
        "is not in the file; convert it to 8 bits, or write the bits as PNG's sBIT"
    )


def _significant_bits(image: Image.Image, data: bytes) -> int:
    """Bits of a sample that mean something: of PNG's sBIT chunk (the most of all colours), of a TIFF's tag; else 16."""
    if image.format == "TIFF":
        return _tiff_bits(image)
    if image.format != "PNG":
        return 16
    position = 8
    while position + 8 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if kind == b"sBIT" and length:
            colours = data[position + 8 : position + 8 + min(length, 1 if data[25] == PNG_GREY_ALPHA else 3)]
            return max(colours) if 0 < max(colours) <= 16 else 16
        if kind in (b"IDAT", b"IEND"):
            break
        position += 12 + length
    return 16


def _tiff_bits(image: Image.Image) -> int:
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE_TAG, (1,))
    return int(max(bits)) if isinstance(bits, tuple) and bits else 1


def _read_png_samples(data: bytes, mode: str) -> Samples:
    """All 16 bits of a PNG in colour or with alpha, which Pillow reads byte by byte: (height, width, channels)."""
    if data[25] == PNG_GREY_ALPHA:  # four bytes a pixel, as of 8-bit RGBA
        samples = _read_png_bytes(data, "RGBA")
        return (samples[..., 0::2] << 8 | samples[..., 1::2]).astype(np.uint16)
    # The high bytes; then the low ones, read as if they were the high ones.
    high, low = (_read_png_bytes(data, f"{mode};16{order}") for order in "BL")
    return (high << 8 | low).astype(np.uint16)


def _read_png_bytes(data: bytes, raw_mode: str) -> Samples:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        image.tile = [tile._replace(args=raw_mode) for tile in image.tile]
        return np.asarray(image).astype(np.uint16)
