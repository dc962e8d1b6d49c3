"""The network's input: size, resizing and normalization, and how boxes follow a resized picture. Pure functions."""

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from pydantic import BaseModel, ConfigDict

Pixels = npt.NDArray[np.uint8]  # (n, size, size, 3) or of one picture (size, size, 3), RGB
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
        size: side of the square input, in pixels.
        resize: `squash`, `crop` or `letterbox`, see `resize_to_input`.
        interpolation: a key of RESAMPLING_FILTERS; anything else is bicubic.
        crop: the share of the picture that timm's own evaluation keeps (timm's `crop_pct`); used by `resize: crop`.
        mean: per channel, on a scale of 0..1.
        std: per channel, on the same scale.
        tiles: of which each is resized to the input; None: the whole picture is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    resize: str
    interpolation: str
    crop: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    tiles: TileSpec | None = None

    def description(self) -> str:
        """`224 px squash`, `320 px, tiles of 320 px`."""
        return f"{self.size} px, tiles of {self.tiles.size} px" if self.tiles else f"{self.size} px {self.resize}"


def resize_to_input(picture: Pillow.Image, input_spec: InputSpec) -> Pixels:
    """One upright picture in the network's size, (size, size, 3).

    `squash` resizes the whole picture and gives up its aspect ratio; `crop` is timm's evaluation: the shorter side to
    size / crop, then the center; `letterbox` resizes the longer side to size and fills the rest with LETTERBOX_GRAY.
    """
    size = input_spec.size
    resampling = RESAMPLING_FILTERS.get(input_spec.interpolation, Pillow.Resampling.BICUBIC)
    # JPEG can be decoded at 1/2, 1/4 or 1/8 scale; twice the size needed is left for the resampling to work on.
    picture.draft("RGB", (2 * size, 2 * size))
    if picture.mode != "L":  # grayscale is resampled as one channel: the same numbers for a third of the work
        picture = picture.convert("RGB")
    if input_spec.resize == "squash":
        return _rgb_array(picture.resize((size, size), resampling))
    resized_size, (left, top) = _geometry(*picture.size, input_spec)
    resized = picture.resize(resized_size, resampling)
    if input_spec.resize == "letterbox":
        canvas = Pillow.new("RGB", (size, size), (LETTERBOX_GRAY,) * 3)
        canvas.paste(resized, (-left, -top))
        return _rgb_array(canvas)
    return _rgb_array(resized.crop((left, top, left + size, top + size)))


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
    size = input_spec.size
    if input_spec.resize == "squash":
        return (size, size), (0, 0)
    if input_spec.resize == "letterbox":
        longer = max(width, height)
        resized_size = (max(1, round(width * size / longer)), max(1, round(height * size / longer)))
        return resized_size, (-((size - resized_size[0]) // 2), -((size - resized_size[1]) // 2))
    edge = int(size / input_spec.crop)  # torchvision's Resize and CenterCrop, rounding included
    longer = int(edge * max(width, height) / min(width, height))
    resized_size = (edge, longer) if width <= height else (longer, edge)
    left, top = (round((side - size) / 2) for side in resized_size)
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
