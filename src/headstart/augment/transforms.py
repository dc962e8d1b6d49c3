"""Random augmentation transforms with parameters sampled by key, applied to stored pictures or to training batches."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as V

from headstart.params.root import AugmentParams

GRAY_WEIGHTS = (0.2989, 0.587, 0.114)  # of red, green and blue, as in torchvision


@dataclass(frozen=True)
class SampledTransform:
    """One picture's random parameters. Angles in degrees, shifts as shares of a side, the rest factors around 1."""

    horizontal_flip: bool
    vertical_flip: bool
    rotation: float
    shift_x: float
    shift_y: float
    zoom: float
    shear: float
    brightness: float
    contrast: float
    saturation: float
    hue: float  # share of the colour circle
    noise: float  # standard deviation, of a scale of 0..1
    seed: int

    @property
    def is_affine(self) -> bool:
        """Whether it moves pixels, flips aside."""
        return any((self.rotation, self.shift_x, self.shift_y, self.shear)) or self.zoom != 1


def sample_transform(params: AugmentParams, *key: object) -> SampledTransform:
    """The random parameters for a key (seed, picture, epoch or copy): the same on any machine, in any order."""
    digest = hashlib.sha256("|".join(map(str, key)).encode()).digest()
    rng = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    signed = rng.uniform(-1, 1, 9).tolist()
    chance = rng.uniform(0, 1, 2)
    return SampledTransform(
        horizontal_flip=bool(chance[0] < params.horizontal_flip),
        vertical_flip=bool(chance[1] < params.vertical_flip),
        rotation=signed[0] * params.rotation,
        shift_x=signed[1] * params.shift,
        shift_y=signed[2] * params.shift,
        zoom=1 + signed[3] * params.zoom,
        shear=signed[4] * params.shear,
        brightness=1 + signed[5] * params.brightness,
        contrast=1 + signed[6] * params.contrast,
        saturation=1 + signed[7] * params.saturation,
        hue=signed[8] * params.hue,
        noise=params.noise,
        seed=int.from_bytes(digest[16:20], "little"),
    )


def transform_image(picture: Tensor, transform: SampledTransform, *, gray_fill: bool = False) -> Tensor:
    """Transform one picture, uint8 (3 or 1, h, w).

    What comes in from outside the frame is the mirrored picture; with `gray_fill` it is grey: a detector must not be
    trained on the mirror image of an object without a box.
    """
    return _apply(picture, [transform], _ImageOps(gray_fill)).to(torch.uint8)


def transform_batch(pictures: Tensor, transforms: Sequence[SampledTransform], *, gray_fill: bool = False) -> Tensor:
    """The same on a batch (n, 3, h, w) of floats in 0..1 on any device, in a few passes over the whole batch."""
    return _apply(pictures, transforms, _BatchOps(gray_fill))


def _apply(x: Tensor, transforms: Sequence[SampledTransform], ops: "_ImageOps | _BatchOps") -> Tensor:
    """The order of the steps, and when one is left out; `ops` has the arithmetic."""
    x = ops.warp(x, transforms)
    if any(t.brightness != 1 for t in transforms):
        x = ops.scale(x, [t.brightness for t in transforms])
    if any(t.contrast != 1 for t in transforms):
        x = ops.blend(x, ops.mean(ops.grayscale(x)), [t.contrast for t in transforms])
    if x.shape[-3] == 3:  # a grey picture has no colour to change
        if any(t.saturation != 1 for t in transforms):
            x = ops.blend(x, ops.grayscale(x), [t.saturation for t in transforms])
        if any(t.hue for t in transforms):
            x = ops.shift_hue(x, [t.hue for t in transforms])
    if any(t.noise for t in transforms):
        x = ops.add_noise(x, transforms)
    return x


class _ImageOps:
    """Steps on one picture (3 or 1, h, w): whole numbers 0 to 255 in float32, in place.

    Every step rounds as torchvision does on bytes, which goes back to bytes after each.
    """

    def __init__(self, gray_fill: bool) -> None:
        self.gray_fill = gray_fill

    def warp(self, x: Tensor, transforms: Sequence[SampledTransform]) -> Tensor:
        (transform,) = transforms
        x = V.horizontal_flip(x) if transform.horizontal_flip else x
        x = V.vertical_flip(x) if transform.vertical_flip else x
        x = x.to(torch.float32, memory_format=torch.contiguous_format)
        if not transform.is_affine:
            return x
        height, width = x.shape[-2:]
        pad = 0 if self.gray_fill else min(_reflect_padding(transform, width, height), width - 1, height - 1)
        x = V.pad(x, [pad], padding_mode="reflect") if pad else x
        x = V.affine(
            x,
            angle=transform.rotation,
            translate=[transform.shift_x * width, transform.shift_y * height],
            scale=transform.zoom,
            shear=[transform.shear, 0.0],
            interpolation=InterpolationMode.BILINEAR,
            fill=[127.0] * len(x) if self.gray_fill else None,
        )
        return x[..., pad : pad + height, pad : pad + width].round()

    def scale(self, x: Tensor, factors: Sequence[float]) -> Tensor:
        return x.mul_(factors[0]).clamp_(0, 255).floor_()

    def grayscale(self, x: Tensor) -> Tensor:
        if len(x) == 1:
            return x
        red, green, blue = x.unbind()
        weights = GRAY_WEIGHTS
        return red.mul(weights[0]).add_(green, alpha=weights[1]).add_(blue, alpha=weights[2]).floor_()

    def mean(self, x: Tensor) -> Tensor:
        return x.mean()

    def blend(self, x: Tensor, other: Tensor, factors: Sequence[float]) -> Tensor:
        return x.mul_(factors[0]).add_(other, alpha=1 - factors[0]).clamp_(0, 255).floor_()

    def shift_hue(self, x: Tensor, hues: Sequence[float]) -> Tensor:
        shifted: Tensor = V.adjust_hue(x.to(torch.uint8), hues[0])
        return shifted.float()

    def add_noise(self, x: Tensor, transforms: Sequence[SampledTransform]) -> Tensor:
        return (x + _noise(x.shape, transforms[0], 255)).round().clamp(0, 255)


class _BatchOps:
    """Steps on a batch (n, 3, h, w) of floats in 0..1, on its device, each picture with its own parameters."""

    def __init__(self, gray_fill: bool) -> None:
        self.gray_fill = gray_fill

    def warp(self, x: Tensor, transforms: Sequence[SampledTransform]) -> Tensor:
        """Flips and affine transforms as one grid_sample."""
        if not any(t.horizontal_flip or t.vertical_flip or t.is_affine for t in transforms):
            return x
        aspect_ratio = x.shape[-1] / x.shape[-2]
        rows = [inverse_affine_matrix(transform, aspect_ratio) for transform in transforms]
        matrices = torch.tensor(rows, dtype=torch.float32).to(x.device)
        grid = F.affine_grid(matrices, list(x.shape), align_corners=False)
        if self.gray_fill:
            return F.grid_sample(x - 0.5, grid, padding_mode="zeros", align_corners=False) + 0.5
        return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)

    def scale(self, x: Tensor, factors: Sequence[float]) -> Tensor:
        return (x * _column(factors, x.device)).clamp(0, 1)

    def grayscale(self, x: Tensor) -> Tensor:
        red, green, blue = x.unbind(1)
        return (GRAY_WEIGHTS[0] * red + GRAY_WEIGHTS[1] * green + GRAY_WEIGHTS[2] * blue).unsqueeze(1)

    def mean(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3), keepdim=True)

    def blend(self, x: Tensor, other: Tensor, factors: Sequence[float]) -> Tensor:
        return torch.lerp(other, x, _column(factors, x.device)).clamp(0, 1)

    def shift_hue(self, x: Tensor, hues: Sequence[float]) -> Tensor:
        return torch.stack([V.adjust_hue(picture, hue) for picture, hue in zip(x, hues, strict=True)])

    def add_noise(self, x: Tensor, transforms: Sequence[SampledTransform]) -> Tensor:
        noise = torch.stack([_noise(x.shape[1:], t) for t in transforms])
        return (x + noise.to(x.device)).clamp(0, 1)


def _column(values: Sequence[float], device: torch.device) -> Tensor:
    """One value a picture of a batch, (n, 1, 1, 1)."""
    return torch.tensor(values, dtype=torch.float32).to(device).reshape(-1, 1, 1, 1)


def _noise(shape: torch.Size, transform: SampledTransform, scale: float = 1.0) -> Tensor:
    """Gaussian noise of one picture, from its own seed; `scale`: the value of white."""
    generator = torch.Generator().manual_seed(transform.seed)
    return torch.randn(shape, generator=generator) * (transform.noise * scale)


def _reflect_padding(transform: SampledTransform, width: int, height: int) -> int:
    """How far outside the frame, in pixels, the transformed picture's corners look."""
    corners = np.array([[-1, 1, -1, 1], [-1, -1, 1, 1], [1, 1, 1, 1]])
    unflipped = replace(transform, horizontal_flip=False, vertical_flip=False)
    beyond = np.abs(np.array(inverse_affine_matrix(unflipped, width / height)) @ corners).max(1) - 1  # along x and y
    return max(1, math.ceil(float((beyond * [width, height]).max()) / 2) + 1)


def inverse_affine_matrix(transform: SampledTransform, aspect_ratio: float) -> list[list[float]]:
    """affine_grid's matrix, 2 x 3: maps each output position to the input position it shows, both in -1..1.

    The inverse of torchvision's rotate(shear(scale)) about the centre, with its sign of the angle; then the flips.

    Args:
        transform: the parameters.
        aspect_ratio: the picture's width by its height: rotation is in pixels, not in -1..1.
    """
    angle, shear = math.radians(transform.rotation), math.radians(transform.shear)
    forward = np.array(
        [
            [math.cos(angle), -math.cos(angle) * math.tan(shear) - math.sin(angle)],
            [math.sin(angle), -math.sin(angle) * math.tan(shear) + math.cos(angle)],
        ]
    )
    stretch = np.diag([aspect_ratio, 1.0])
    inverse = np.linalg.inv(stretch) @ np.linalg.inv(forward * transform.zoom) @ stretch
    offset = -inverse @ np.array([2 * transform.shift_x, 2 * transform.shift_y])
    flip = np.diag([-1.0 if transform.horizontal_flip else 1.0, -1.0 if transform.vertical_flip else 1.0])
    matrix: list[list[float]] = (flip @ np.column_stack([inverse, offset])).tolist()
    return matrix
