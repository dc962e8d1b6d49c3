"""The door: bytes from outside are decoded once and leave as an upright 8-bit JPEG or PNG, or not at all."""

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, UnidentifiedImageError

from headstart.jpeg import skeleton

# Only formats of pixels: PIL also opens EPS (through a PostScript interpreter), PSD, fonts and scientific grids.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM")
MAX_BYTES = 100_000_000
MAX_PIXELS = 100_000_000  # decoded, 300 MB: more than a camera makes, less than a bomb
ORIENTATION = 0x0112
# EXIF orientation that does the same as turning the picture counter-clockwise by these degrees.
ORIENTATION_OF_ROTATION = {0: 1, 90: 8, 180: 3, 270: 6}


class PictureError(Exception):
    """Bytes that are no usable picture. `kind` is one word for the summary; the text is the reason."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class Picture:
    """What the door lets in.

    Attributes:
        data: the bytes to store; the original's own where nothing had to change.
        suffix: `.jpg` or `.png`.
        width: pixels of the upright picture.
        height: pixels of the upright picture.
        orientation: EXIF's number (1-8) for how the stored pixels were turned to be upright; 1: not at all.
        changes: what had to be done, in words for the summary (`rotated`, `alpha`, `webp`, …); empty: nothing.
    """

    data: bytes = field(repr=False)
    suffix: str
    width: int
    height: int
    orientation: int
    changes: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Of `data`, in hex."""
        return hashlib.sha256(self.data).hexdigest()


@contextmanager
def pil_set_up() -> Iterator[None]:
    """Around a pool of threads that call `admit`: PIL's limit becomes the door's, and its warnings are not printed."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        with warnings.catch_warnings():  # about metadata that no longer matters once the pixels are decoded
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def admit(data: bytes, *, rotation: int | None = None, min_side: int = 1, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode a picture whole and make it upright, 8-bit RGB or grey.

    A JPEG or PNG that already is all that keeps its bytes. A JPEG that is not is stored as JPEG at quality 95,
    anything else as PNG. Of a moving picture the first frame counts; what is transparent becomes white.

    Args:
        data: the file's bytes.
        rotation: degrees counter-clockwise (0, 90, 180, 270) that make the pixels upright, EXIF left aside;
            None: EXIF decides.
        min_side: shortest side in pixels that is let in.
        max_pixels: most pixels that are let in; no more than MAX_PIXELS.

    Raises:
        PictureError: the bytes are no picture, not a whole one, too small or too large.
    """
    with _reasons():
        return _admit(data, rotation, min_side, max_pixels)


@contextmanager
def upright(data: bytes, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """The upright picture itself, for those who want its pixels once and no file to store.

    One that has nothing to be changed is not decoded yet, so that `draft` can still make that cheap.

    Raises:
        PictureError: as `admit`; what goes wrong with the picture inside the `with` is one too.
    """
    with _reasons(), _open(data) as image:
        _check(image, data, 1, max_pixels)
        if not _changes(image, data, turned=_exif_orientation(image) != 1):
            yield image
            return
        image.load()
        yield _turned(_rgb(image), _exif_orientation(image))  # a TIFF is upright once it is loaded


@contextmanager
def _reasons() -> Iterator[None]:
    try:
        yield
    except (PictureError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise PictureError("too_large", str(error)) from error
    # Broken bytes make PIL's decoders raise anything (OSError, SyntaxError, struct.error, IndexError, …).
    # None of it is lost: the reason goes to failed.csv.
    except Exception as error:
        kind = "truncated" if "truncated" in str(error).lower() else "broken"
        raise PictureError(kind, f"cannot be decoded: {error or type(error).__name__}") from error


def _check(image: Image.Image, data: bytes, min_side: int, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise PictureError("too_large", f"{width} x {height} pixels, more than {max_pixels:,}: make it smaller")
    if min(width, height) < min_side:
        raise PictureError("too_small", f"{width} x {height} pixels, a side below min_side {min_side}")
    if image.format == "PNG":
        with _open(data) as twin:
            twin.verify()  # checksums of all chunks, which decoding alone does not look at


def _admit(data: bytes, rotation: int | None, min_side: int, max_pixels: int) -> Picture:
    with _open(data) as image:
        width, height = image.size
        _check(image, data, min_side, max_pixels)
        is_jpeg = image.format in ("JPEG", "MPO")
        if is_jpeg and rotation in (None, 0) and not _changes(image, data, turned=_exif_orientation(image) != 1):
            _load_skeleton(image, data)  # the pixels are not needed, only that they can be decoded
        else:
            image.load()
        in_exif = _exif_orientation(image)  # a TIFF is upright once it is loaded
        orientation = in_exif if rotation is None else ORIENTATION_OF_ROTATION[rotation]
        changes = _changes(image, data, turned=(orientation, in_exif) != (1, 1))
        if not changes:
            suffix = ".jpg" if is_jpeg else ".png"
            return Picture(data, suffix, width, height, 1, ())
        upright = _turned(_rgb(image), orientation)
        stored, suffix = _encode(upright, as_jpeg=is_jpeg)
        return Picture(stored, suffix, *upright.size, orientation, changes)


def _open(data: bytes) -> Image.Image:
    if not data:
        raise PictureError("empty", "an empty file")
    if len(data) > MAX_BYTES:
        raise PictureError("too_large", f"{len(data):,} bytes, more than {MAX_BYTES:,}")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        start = data[:400].lstrip().lower()
        if start.startswith((b"<!doctype html", b"<html", b"<head")):
            raise PictureError("web_page", "a web page, not a picture") from None
        if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc"):
            raise PictureError("not_a_picture", "HEIC, which cannot be read here: convert it to JPEG") from None
        raise PictureError("not_a_picture", f"not a picture (it begins with {repr(data[:12])[1:]})") from None


def _load_skeleton(image: Image.Image, data: bytes) -> None:
    """Raise what decoding all of a JPEG would raise, at a fifth of the cost.

    libjpeg meets coded data that makes no sense with a warning and grey, never with an error: it fails on a segment
    (a table, a header, the order of the scans), and on data that ends before the picture does. So a picture that goes
    on to its end marker can be decoded if it can be without its coded data, which is nearly all of it. One that ends
    without, or has a segment that is not of every day, is decoded itself: every byte read, an eighth of its size made.
    """
    bare_bytes = skeleton(data) if image.format == "JPEG" else None
    if bare_bytes is None:
        image.draft(None, (1, 1))
        image.load()
        return
    with _open(bare_bytes) as bare:
        bare.draft(None, (1, 1))
        bare.load()


def _exif_orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 where there is none, a wrong one, or EXIF that cannot be read (as browsers do)."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, IndexError, EOFError):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _changes(image: Image.Image, data: bytes, *, turned: bool) -> tuple[str, ...]:
    """Why the bytes cannot stay as they are."""
    kind = str(image.format).lower()
    moving = kind != "mpo" and getattr(image, "is_animated", False)  # MPO: a camera's JPEG with a preview behind it
    found = {
        kind: kind not in ("jpeg", "mpo", "png"),
        "first_frame": bool(moving),
        "rotated": turned,
        "alpha": _has_alpha(image),
        "palette": image.mode in ("P", "PA"),
        "cmyk": image.mode == "CMYK",
        "depth": image.mode == "1" or image.mode.startswith(("I", "F")) or (kind == "png" and data[24] != 8),
        "colour": image.mode in ("LAB", "YCbCr", "HSV"),
    }
    if found["palette"]:
        found["depth"] = False  # bits of the palette's index, not of the pixels
    return tuple(what for what, is_so in found.items() if is_so)


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _rgb(image: Image.Image) -> Image.Image:
    """The pixels as 8-bit RGB: 16 bits divided by 257, transparent parts on white."""
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise PictureError(
            "depth", f"32-bit pixels (mode {image.mode}), whose white is unknown: convert it to 8 or 16 bits"
        )
    if _has_alpha(image):
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    """Turned and mirrored as EXIF's number says."""
    if orientation == 1:
        return image
    moves = (
        Image.Transpose.FLIP_LEFT_RIGHT,
        Image.Transpose.ROTATE_180,
        Image.Transpose.FLIP_TOP_BOTTOM,
        Image.Transpose.TRANSPOSE,
        Image.Transpose.ROTATE_270,
        Image.Transpose.TRANSVERSE,
        Image.Transpose.ROTATE_90,
    )
    return image.transpose(moves[orientation - 2])


def _encode(image: Image.Image, *, as_jpeg: bool) -> tuple[bytes, str]:
    """Bytes without any metadata: an EXIF orientation left behind would turn the picture a second time."""
    image.info.clear()
    buffer = io.BytesIO()
    if as_jpeg:
        image.save(buffer, "JPEG", quality=95, subsampling=0)
        return buffer.getvalue(), ".jpg"
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue(), ".png"
