"""Image decoding and validation: bytes from outside become an upright 8-bit JPEG or PNG, or are rejected."""

import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from PIL import Image, UnidentifiedImageError

from headstart.images.depth import DarkPictureError, has_16bit_samples, is_dim
from headstart.images.jpeg import strip_scan_data
from headstart.images.upright import (
    EXIF_ORIENTATION_OF_ROTATION,
    INVERSE_ORIENTATION,
    apply_orientation,
    encode_without_metadata,
    exif_orientation,
    ignore_xmp,
    needed_conversions,
    to_8bit_rgb,
)

# Raster formats alone: PIL also opens EPS (through a PostScript interpreter), PSD, fonts and scientific grids.
ALLOWED_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
MAX_BYTES = 100_000_000
MAX_PIXELS = 100_000_000  # 300 MB decoded: more than a camera makes, less than a decompression bomb


class PictureError(Exception):
    """Bytes that are no usable picture. `kind` is one word for the summary; the message is the reason."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class ValidatedPicture:
    """A picture that passed validation, as it is to be stored.

    Attributes:
        data: the bytes to store; the original's own where nothing had to be converted.
        suffix: `.jpg` or `.png`.
        width: pixels of the upright picture.
        height: pixels of the upright picture.
        orientation: EXIF orientation (1-8) that was applied to make the stored pixels upright; 1: none.
        conversions: what was converted, as names for the summary (`rotated`, `alpha`, `webp`, …); empty: nothing.
            `dim`: of 16 bits, and nothing in it is brighter than a quarter of white.
    """

    data: bytes = field(repr=False)
    suffix: str
    width: int
    height: int
    orientation: int
    conversions: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Hash of `data`, in hex."""
        return hashlib.sha256(self.data).hexdigest()


@contextmanager
def configured_pil() -> Iterator[None]:
    """Put around threads that decode: PIL's pixel limit becomes MAX_PIXELS, and its warnings are not printed."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        with warnings.catch_warnings():  # about metadata that no longer matters once the pixels are decoded
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def validate_picture(
    data: bytes, *, rotation: int | None = None, min_side: int = 1, max_pixels: int = MAX_PIXELS
) -> ValidatedPicture:
    """Decode a picture completely and make it upright, 8-bit RGB or grey.

    A JPEG or PNG that already is all that keeps its bytes. Any other JPEG is stored as JPEG at quality 95, anything
    else as PNG. An animation is stored as its first frame; transparent pixels become white.

    Args:
        data: the file's bytes.
        rotation: degrees counter-clockwise (0, 90, 180, 270) that make the pixels upright, EXIF ignored;
            None: EXIF decides.
        min_side: least shorter side, in pixels.
        max_pixels: most pixels; no more than MAX_PIXELS.

    Raises:
        PictureError: the bytes are no picture, or one that is incomplete, too small or too large.
    """
    with _as_picture_error():
        return _validate(data, rotation, min_side, max_pixels)


@contextmanager
def open_upright(data: bytes, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The upright picture as a PIL image, for callers that need its pixels once and store no file.

    One that needs no conversion is not decoded yet, so that `Image.draft` can still make that cheap.

    Raises:
        PictureError: as `validate_picture`; any exception inside the `with` block becomes one too.
    """
    with _as_picture_error(), _open(data) as image:
        _check_size_and_checksums(image, data, 1, max_pixels)
        if image.format not in ("JPEG", "MPO"):  # a PNG's EXIF may be after its pixels, and `draft` is of JPEG
            image.load()
        orientation = exif_orientation(image)  # after load(), which makes a TIFF upright
        if not needed_conversions(image, data, rotated=orientation != 1):
            yield image
            return
        image.load()
        yield apply_orientation(_to_rgb(image, data), orientation)


@contextmanager
def _as_picture_error() -> Iterator[None]:
    try:
        yield
    except (PictureError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        count = f"{int(pixels.group()):,} pixels" if pixels else "pixels"
        raise PictureError("too_large", f"{count}, more than {MAX_PIXELS:,}: make it smaller") from error
    # Broken bytes make PIL's decoders raise anything (OSError, SyntaxError, struct.error, IndexError, …).
    # None of it is lost: the reason goes to failed.csv.
    except Exception as error:
        kind = "truncated" if "truncated" in str(error).lower() else "broken"
        raise PictureError(kind, f"cannot be decoded: {error or type(error).__name__}") from error


def _open(data: bytes) -> Image.Image:
    if not data:
        raise PictureError("empty", "an empty file")
    if len(data) > MAX_BYTES:
        raise PictureError("too_large", f"{len(data):,} bytes, more than {MAX_BYTES:,}")
    try:
        image = Image.open(io.BytesIO(data), formats=ALLOWED_FORMATS)
    except UnidentifiedImageError:
        if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
            return _open_heif(data)
        start = data[:400].lstrip().lower()
        if start.startswith((b"<!doctype html", b"<html", b"<head")):
            raise PictureError("web_page", "a web page, not a picture") from None
        raise PictureError("not_a_picture", f"not a picture (it begins with {repr(data[:12])[1:]})") from None
    ignore_xmp(image)
    return image


def _open_heif(data: bytes) -> Image.Image:
    """A HEIC picture, opened by pillow-heif, which makes it upright and sets its EXIF orientation to 1."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise PictureError(
            "heic",
            "HEIC, which needs pillow-heif: .venv/bin/pip install -e '.[heic]', then dvc repro -f fetch; or convert it "
            "to JPEG",
        ) from None
    image: Image.Image = HeifImageFile(io.BytesIO(data))
    return image


def _check_size_and_checksums(image: Image.Image, data: bytes, min_side: int, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise PictureError("too_large", f"{width} x {height} pixels, more than {max_pixels:,}: make it smaller")
    if min(width, height) < min_side:
        raise PictureError("too_small", f"{width} x {height} pixels, a side below min_side {min_side}")
    if image.format == "PNG":
        with _open(data) as reopened:  # verify() leaves an image that cannot be decoded
            reopened.verify()  # checksums of all chunks, which decoding alone does not check


def _validate(data: bytes, rotation: int | None, min_side: int, max_pixels: int) -> ValidatedPicture:
    with _open(data) as image:
        width, height = image.size
        _check_size_and_checksums(image, data, min_side, max_pixels)
        is_jpeg = image.format in ("JPEG", "MPO")
        at_load = exif_orientation(image) if image.format == "TIFF" else 1  # what load() applies to the pixels
        if (
            is_jpeg
            and rotation in (None, 0)
            and not needed_conversions(image, data, rotated=exif_orientation(image) != 1)
        ):
            _check_jpeg_decodes(image, data)  # its bytes are kept: no pixels are needed
        else:
            image.load()
        in_exif = exif_orientation(image) if at_load == 1 else at_load
        orientation = in_exif if rotation is None else EXIF_ORIENTATION_OF_ROTATION[rotation]
        conversions = needed_conversions(image, data, rotated=(orientation, in_exif) != (1, 1))
        if not conversions:
            suffix = ".jpg" if is_jpeg else ".png"
            return ValidatedPicture(data, suffix, width, height, 1, ())
        upright = apply_orientation(_to_rgb(image, data), INVERSE_ORIENTATION.get(at_load, at_load))
        upright = apply_orientation(upright, orientation)
        if has_16bit_samples(image, data) and is_dim(upright):
            conversions = (*conversions, "dim")
        stored, suffix = encode_without_metadata(upright, as_jpeg=is_jpeg)
        return ValidatedPicture(stored, suffix, *upright.size, orientation, conversions)


def _check_jpeg_decodes(image: Image.Image, data: bytes) -> None:
    """Raise what decoding the complete JPEG would raise, at a fifth of the cost.

    libjpeg answers invalid entropy-coded data with a warning and grey pixels, never with an error: it fails on a
    segment (a table, a header, the order of the scans), and on data that ends too early. So a JPEG that has its end
    marker can be decoded if it can be without its entropy-coded data, which is nearly all of it. One without an end
    marker, or with an uncommon segment, is decoded itself: all bytes are read, and an eighth of its size is computed.
    """
    segments = strip_scan_data(data) if image.format == "JPEG" else None
    if segments is None:
        image.draft(None, (1, 1))
        image.load()
        return
    with _open(segments) as stripped:
        stripped.draft(None, (1, 1))
        stripped.load()


def _to_rgb(image: Image.Image, data: bytes) -> Image.Image:
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):  # a PGM says what its white is
        raise PictureError(
            "depth",
            f"pixels of 32 bits or with a sign (mode {image.mode}), whose white is unknown: convert it to 8 bits",
        )
    try:
        return to_8bit_rgb(image, data)
    except DarkPictureError as error:
        raise PictureError("depth", str(error)) from None
