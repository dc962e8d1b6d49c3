"""The network's input: size, resizing and normalization, and how boxes follow a resized picture. Pure functions."""

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from pydantic import BaseModel, ConfigDict

Shape = tuple[int, int]  # height and width, in pixels
ImageSize = int | Shape  # side of a square, or height and width
Pixels = npt.NDArray[np.uint8]  # (n, height, width, 3) or of one picture (height, width, 3), RGB
XyxyArray = npt.NDArray[np.float32]  # (b, 4): xmin, ymin, xmax, ymax

RESAMPLING_FILTERS = {
    "nearest": Pillow.Resampling.NEAREST,
    "bilinear": Pillow.Resampling.BILINEAR,
    "bicubic": Pillow.Resampling.BICUBIC,
    "lanczos": Pillow.Resampling.LANCZOS,
}
LETTERBOX_GRAY = 127  # as what augmentation moves into a detector's pictures


class TileSpec(BaseModel):
    """How large pictures are cut into tiles, each an input of its own.

    Attributes:
        size: side of a tile, in pixels of the picture.
        overlap: share of a tile's side that it has in common with the next one. A thing smaller than that is whole in
            one of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    overlap: float


class InputSpec(BaseModel):
    """The network's preprocessing, as timm's data config has it.

    Attributes:
        size: side of the square input, in pixels, or height and width.
        resize: `squash`, `crop` or `letterbox`, see `resize_to_input`.
        interpolation: a key of RESAMPLING_FILTERS; anything else is bicubic.
        crop: the share of the picture that timm's own evaluation keeps (timm's `crop_pct`); used by `resize: crop`.
        mean: per channel, on a scale of 0..1.
        std: per channel, on the same scale.
        tiles: of which each is resized to the input; None: the whole picture is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: ImageSize
    resize: str
    interpolation: str
    crop: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    tiles: TileSpec | None = None

    @property
    def shape(self) -> Shape:
        """Height and width, in pixels."""
        return to_shape(self.size)

    def description(self) -> str:
        """`224 px squash`, `240 x 416 px letterbox`, `320 px, tiles of 320 px`."""
        size = format_shape(self.shape)
        return f"{size}, tiles of {self.tiles.size} px" if self.tiles else f"{size} {self.resize}"


def to_shape(size: ImageSize) -> Shape:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def format_shape(shape: Shape) -> str:
    """`224 px` of a square, else `240 x 416 px`: height and width."""
    height, width = shape
    return f"{width} px" if height == width else f"{height} x {width} px"


def resize_to_input(picture: Pillow.Image, input_spec: InputSpec) -> Pixels:
    """One upright picture in the network's size, (height, width, 3).

    `squash` resizes the whole picture and gives up its aspect ratio. `crop` is timm's evaluation: the picture just
    covers the input's height and width divided by `crop`, and its center is the input. `letterbox` resizes the picture
    so that it just fits into the input, and fills the rest with LETTERBOX_GRAY.
    """
    height, width = input_spec.shape
    resampling = RESAMPLING_FILTERS.get(input_spec.interpolation, Pillow.Resampling.BICUBIC)
    # JPEG can be decoded at 1/2, 1/4 or 1/8 scale; twice the size needed is left for the resampling to work on.
    picture.draft("RGB", (2 * width, 2 * height))
    if picture.mode != "L":  # grayscale is resampled as one channel: the same numbers for a third of the work
        picture = picture.convert("RGB")
    if input_spec.resize == "squash":
        return _rgb_array(picture.resize((width, height), resampling))
    resized_size, (left, top) = _geometry(*picture.size, input_spec)
    resized = picture.resize(resized_size, resampling)
    if input_spec.resize == "letterbox":
        canvas = Pillow.new("RGB", (width, height), (LETTERBOX_GRAY,) * 3)
        canvas.paste(resized, (-left, -top))
        return _rgb_array(canvas)
    return _rgb_array(resized.crop((left, top, left + width, top + height)))


def boxes_to_input(boxes: XyxyArray, width: int, height: int, input_spec: InputSpec) -> XyxyArray:
    """Boxes (b, 4) in pixels of a picture of this size -> in pixels of the network's input.

    They are not clipped: with `resize: crop` they may reach beyond the input, or lie outside it.
    """
    scale, offset = _scale_and_offset(width, height, input_spec)
    in_input: XyxyArray = (boxes * scale - offset).astype(np.float32)
    return in_input


def boxes_from_input(boxes: XyxyArray, width: int, height: int, input_spec: InputSpec) -> XyxyArray:
    """Detected boxes (b, 4) in pixels of the network's input -> in pixels of the picture, clipped to it."""
    scale, offset = _scale_and_offset(width, height, input_spec)
    clipped: XyxyArray = ((boxes + offset) / scale).clip(0, [width, height, width, height]).astype(np.float32)
    return clipped


def _geometry(width: int, height: int, input_spec: InputSpec) -> tuple[tuple[int, int], tuple[int, int]]:
    """Width and height of the resized picture, and left and top of the input in it; negative: the input is larger."""
    to_height, to_width = input_spec.shape
    if input_spec.resize == "squash":
        return (to_width, to_height), (0, 0)
    if input_spec.resize == "letterbox":
        if width * to_height >= height * to_width:
            resized_size = (to_width, max(1, round(height * to_width / width)))
        else:
            resized_size = (max(1, round(width * to_height / height)), to_height)
        return resized_size, (-((to_width - resized_size[0]) // 2), -((to_height - resized_size[1]) // 2))
    # torchvision's Resize and CenterCrop, rounding included
    covered_width, covered_height = int(to_width / input_spec.crop), int(to_height / input_spec.crop)
    if width * covered_height <= height * covered_width:
        resized_size = (covered_width, int(covered_width * height / width))
    else:
        resized_size = (int(covered_height * width / height), covered_height)
    left, top = (round((side - to) / 2) for side, to in zip(resized_size, (to_width, to_height), strict=True))
    return resized_size, (left, top)


def _scale_and_offset(
    width: int, height: int, input_spec: InputSpec
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Scale and offset of x, y, x, y."""
    resized_size, start = _geometry(width, height, input_spec)
    scale = np.array([resized_size[0] / width, resized_size[1] / height] * 2)
    return scale, np.array([*start, *start], np.float64)


def _rgb_array(picture: Pillow.Image) -> Pixels:
    return np.asarray(picture.convert("RGB"))
