"""Upright 8-bit RGB from any decoded picture: EXIF orientation, alpha, palettes, CMYK, 16 bits; and its encoding."""

import io
import struct

from PIL import Image

from headstart.images.depth import colour_to_8bit, grey_to_8bit, has_16bit_samples

EXIF_ORIENTATION_TAG = 0x0112
# EXIF orientation that has the same effect as rotating the picture counter-clockwise by these degrees.
EXIF_ORIENTATION_OF_ROTATION = {0: 1, 90: 8, 180: 3, 270: 6}
INVERSE_ORIENTATION = {6: 8, 8: 6}  # the others are their own
# How a picture of EXIF orientation 2 to 8 is transposed to be upright.
_TRANSPOSES = (
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_180,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)


def exif_orientation(image: Image.Image) -> int:
    """EXIF orientation (1 to 8); 1 where it is absent, invalid, or in EXIF that cannot be read (as browsers do).

    A TIFF's own orientation until it is decoded, which makes its pixels upright. Not `Image.getexif`, which takes the
    orientation of XMP where EXIF has none: it may be of another version of the picture, and nothing else applies it.
    """
    try:
        if image.format == "TIFF":
            value = getattr(image, "tag_v2", {}).get(EXIF_ORIENTATION_TAG, 1)
        else:
            value = _read_exif(image).get(EXIF_ORIENTATION_TAG, 1)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, IndexError, EOFError, struct.error):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def ignore_xmp(image: Image.Image) -> None:
    """Before decoding: Pillow turns a TIFF without an orientation by that of its XMP."""
    image.info.pop("xmp", None)
    image.info.pop("XML:com.adobe.xmp", None)


def _read_exif(image: Image.Image) -> Image.Exif:
    exif = Image.Exif()
    raw = image.info.get("exif")
    if raw is None and "Raw profile type exif" in image.info:  # as ImageMagick writes it into a PNG, in hex
        raw = bytes.fromhex("".join(image.info["Raw profile type exif"].split("\n")[3:]))
    if raw:
        exif.load(raw)
    return exif


def needed_conversions(image: Image.Image, data: bytes, *, rotated: bool) -> tuple[str, ...]:
    """What must be converted before the picture can be stored; empty: its bytes can be stored as they are.

    Args:
        image: opened; it need not be decoded.
        data: the file's bytes.
        rotated: whether its pixels must be transposed to be upright.

    Returns:
        Names for the summary: the format (`webp`, …), `first_frame`, `rotated`, `alpha`, `palette`, `cmyk`, `depth`,
        `colour`.
    """
    file_format = str(image.format).lower()
    # MPO: a camera's JPEG with a preview as its second frame.
    animated = file_format != "mpo" and getattr(image, "is_animated", False)
    other_depth = (file_format == "png" and data[24] != 8) or has_16bit_samples(image, data)  # the bit depth in IHDR
    needed = {
        file_format: file_format not in ("jpeg", "mpo", "png"),
        "first_frame": bool(animated),
        "rotated": rotated,
        "alpha": _has_alpha(image),
        "palette": image.mode in ("P", "PA"),
        "cmyk": image.mode == "CMYK",
        "depth": image.mode == "1" or image.mode.startswith(("I", "F")) or other_depth,
        "colour": image.mode in ("LAB", "YCbCr", "HSV"),
    }
    if needed["palette"]:
        needed["depth"] = False  # the bits are of the palette's index, not of the pixels
    return tuple(name for name, is_needed in needed.items() if is_needed)


def to_8bit_rgb(image: Image.Image, data: bytes) -> Image.Image:
    """The decoded pixels as 8-bit RGB: 9 to 16 bits scaled, transparent pixels over white.

    Raises:
        DarkPictureError: 16 bits of which only the lowest are used, and the file does not say how many.
    """
    if has_16bit_samples(image, data):
        if image.mode.startswith("I"):
            return grey_to_8bit(image, data)
        image = colour_to_8bit(image, data)
    if _has_alpha(image):
        rgba = image.convert("RGBA")
        if _is_alpha_unused(image, rgba):
            return rgba.convert("RGB")  # which drops the alpha
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def apply_orientation(image: Image.Image, orientation: int) -> Image.Image:
    """The picture rotated and mirrored from an EXIF orientation (1 to 8) to upright."""
    return image if orientation == 1 else image.transpose(_TRANSPOSES[orientation - 2])


def encode_without_metadata(image: Image.Image, *, as_jpeg: bool) -> tuple[bytes, str]:
    """JPEG or PNG bytes and their suffix; an EXIF orientation left in would rotate the picture a second time."""
    image.info.clear()
    buffer = io.BytesIO()
    if as_jpeg:
        image.save(buffer, "JPEG", quality=95, subsampling=0)
        return buffer.getvalue(), ".jpg"
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue(), ".png"


def _is_alpha_unused(image: Image.Image, rgba: Image.Image) -> bool:
    """Whether a BMP has an alpha of 0 everywhere: programs that know no alpha leave its byte empty."""
    return image.format in ("BMP", "DIB") and rgba.getchannel("A").getextrema() == (0, 0)


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
