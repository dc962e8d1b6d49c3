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


class InputSpec(BaseModel):
    """The network's preprocessing, as timm's data config has it.

    Attributes:
        size: side of the square input, in pixels.
        resize: `squash` or `crop`, see `resize_to_input`.
        interpolation: a key of RESAMPLING_FILTERS; anything else is bicubic.
        crop: the share of the picture that timm's own evaluation keeps (timm's `crop_pct`); used by `resize: crop`.
        mean: per channel, on a scale of 0..1.
        std: per channel, on the same scale.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    resize: str
    interpolation: str
    crop: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def description(self) -> str:
        """`224 px squash`."""
        return f"{self.size} px {self.resize}"


def resize_to_input(picture: Pillow.Image, input_spec: InputSpec) -> Pixels:
    """One upright picture in the network's size, (size, size, 3).

    `squash` resizes the whole picture and gives up its aspect ratio; `crop` is timm's evaluation: the shorter side to
    size / crop, then the center.
    """
    size = input_spec.size
    resampling = RESAMPLING_FILTERS.get(input_spec.interpolation, Pillow.Resampling.BICUBIC)
    # JPEG can be decoded at 1/2, 1/4 or 1/8 scale; twice the size needed is left for the resampling to work on.
    picture.draft("RGB", (2 * size, 2 * size))
    if picture.mode != "L":  # grayscale is resampled as one channel: the same numbers for a third of the work
        picture = picture.convert("RGB")
    if input_spec.resize == "squash":
        return _rgb_array(picture.resize((size, size), resampling))
    resized_size, (left, top) = _crop_geometry(*picture.size, input_spec)
    return _rgb_array(picture.resize(resized_size, resampling).crop((left, top, left + size, top + size)))


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


def _crop_geometry(width: int, height: int, input_spec: InputSpec) -> tuple[tuple[int, int], tuple[int, int]]:
    """Of `resize: crop`: width and height of the resized picture, and left and top of the center crop in it."""
    edge = int(input_spec.size / input_spec.crop)  # torchvision's Resize and CenterCrop, rounding included
    longer = int(edge * max(width, height) / min(width, height))
    resized_size = (edge, longer) if width <= height else (longer, edge)
    left, top = (round((side - input_spec.size) / 2) for side in resized_size)
    return resized_size, (left, top)


def _scale_and_offset(
    width: int, height: int, input_spec: InputSpec
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Scale and offset of x, y, x, y."""
    resized_size, crop_start = (input_spec.size, input_spec.size), (0, 0)
    if input_spec.resize != "squash":
        resized_size, crop_start = _crop_geometry(width, height, input_spec)
    scale = np.array([resized_size[0] / width, resized_size[1] / height] * 2)
    return scale, np.array([*crop_start, *crop_start], np.float64)


def _rgb_array(picture: Pillow.Image) -> Pixels:
    return np.asarray(picture.convert("RGB"))
