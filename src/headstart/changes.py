"""Random changes of training pictures: one kind of draw, applied to files once or to batches every epoch."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as V

from headstart.params import AugmentParams


@dataclass(frozen=True)
class Draw:
    """One picture's random change. Angles in degrees, shifts in shares of a side, the rest factors around 1."""

    mirror: bool
    upside_down: bool
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


def draw(params: AugmentParams, *key: object) -> Draw:
    """The change that belongs to a key (seed, picture, epoch or copy): the same on any machine, in any order."""
    digest = hashlib.sha256("|".join(map(str, key)).encode()).digest()
    rng = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
    signed = rng.uniform(-1, 1, 9).tolist()
    chance = rng.uniform(0, 1, 2)
    return Draw(
        mirror=bool(chance[0] < params.horizontal_flip),
        upside_down=bool(chance[1] < params.vertical_flip),
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


def apply(picture: Tensor, drawn: Draw, *, grey: bool = False) -> Tensor:
    """Change one picture (3 or 1, h, w), uint8.

    What comes in from outside the frame repeats the picture mirrored, or is grey: a detector must not be shown the
    mirror image of a thing without a box.
    """
    x = V.horizontal_flip(picture) if drawn.mirror else picture
    x = V.vertical_flip(x) if drawn.upside_down else x
    # Floats of whole numbers from here to the end, and in place: torchvision goes back to bytes after every change.
    x = x.to(torch.float32, memory_format=torch.contiguous_format)
    height, width = x.shape[-2:]
    if any((drawn.rotation, drawn.shift_x, drawn.shift_y, drawn.shear)) or drawn.zoom != 1:
        pad = 0 if grey else min(_margin(drawn, width, height), width - 1, height - 1)
        x = V.pad(x, [pad], padding_mode="reflect") if pad else x
        x = V.affine(
            x,
            angle=drawn.rotation,
            translate=[drawn.shift_x * width, drawn.shift_y * height],
            scale=drawn.zoom,
            shear=[drawn.shear, 0.0],
            interpolation=InterpolationMode.BILINEAR,
            fill=[127.0] * len(x) if grey else None,
        )
        x = x[..., pad : pad + height, pad : pad + width].round()
    if drawn.brightness != 1:
        x.mul_(drawn.brightness).clamp_(0, 255).floor_()
    if drawn.contrast != 1:
        _blend(x, (_grey_whole(x) if len(x) == 3 else x).mean(), drawn.contrast)
    if len(x) == 3 and drawn.saturation != 1:  # grey has no colour to change
        _blend(x, _grey_whole(x), drawn.saturation)
    if len(x) == 3 and drawn.hue:
        x = V.adjust_hue(x.to(torch.uint8), drawn.hue).float()
    if drawn.noise:
        generator = torch.Generator().manual_seed(drawn.seed)
        noise = torch.randn(x.shape, generator=generator) * (drawn.noise * 255)
        x = (x + noise).round().clamp(0, 255)
    return x.to(torch.uint8)


def _grey_whole(x: Tensor) -> Tensor:
    """The grey that torchvision makes of a picture of bytes, (h, w)."""
    red, green, blue = x
    grey: Tensor = red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_()
    return grey


def _blend(x: Tensor, other: Tensor, ratio: float) -> None:
    """As torchvision blends pictures of bytes, in place."""
    x.mul_(ratio).add_(other, alpha=1 - ratio).clamp_(0, 255).floor_()


def _margin(drawn: Draw, width: int, height: int) -> int:
    """How far outside the frame, in pixels, the changed picture's corners look."""
    corners = np.array([[-1, 1, -1, 1], [-1, -1, 1, 1], [1, 1, 1, 1]])
    seen = float(np.abs(np.array(theta(replace(drawn, mirror=False, upside_down=False))) @ corners).max()) - 1
    return max(1, math.ceil(seen * max(width, height) / 2) + 1)


def apply_batch(pictures: Tensor, draws: Sequence[Draw], *, grey: bool = False) -> Tensor:
    """The same changes as `apply`, on a batch (n, 3, s, s) of floats in 0..1 on any device, in a few passes.

    One grid_sample moves the pixels of the whole batch; light and colour are arithmetic on it.
    """
    device = pictures.device

    def column(values: Iterable[float]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.float32, device=device).reshape(-1, 1, 1, 1)

    x = pictures
    if any(d.mirror or d.upside_down or d.rotation or d.shift_x or d.shift_y or d.shear or d.zoom != 1 for d in draws):
        matrices = torch.tensor([theta(d) for d in draws], dtype=torch.float32, device=device)
        grid = F.affine_grid(matrices, list(x.shape), align_corners=False)
        if grey:
            x = F.grid_sample(x - 0.5, grid, padding_mode="zeros", align_corners=False) + 0.5
        else:
            x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    if any(d.brightness != 1 for d in draws):
        x = (x * column(d.brightness for d in draws)).clamp(0, 1)
    if any(d.contrast != 1 for d in draws):
        mean = _grey(x).mean((1, 2, 3), keepdim=True)
        x = torch.lerp(mean, x, column(d.contrast for d in draws)).clamp(0, 1)
    if any(d.saturation != 1 for d in draws):
        x = torch.lerp(_grey(x), x, column(d.saturation for d in draws)).clamp(0, 1)
    if any(d.hue for d in draws):
        x = torch.stack([V.adjust_hue(picture, d.hue) for picture, d in zip(x, draws, strict=True)])
    if any(d.noise for d in draws):
        noise = [torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(d.seed)) * d.noise for d in draws]
        x = (x + torch.stack(noise).to(device)).clamp(0, 1)
    return x


def _grey(x: Tensor) -> Tensor:
    red, green, blue = x.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def theta(drawn: Draw, proportion: float = 1.0) -> list[list[float]]:
    """affine_grid's matrix: where each output pixel looks in the input, both in -1..1.

    The inverse of torchvision's rotate(shear(scale)) about the centre, with its sign of the angle; then the flips.
    `proportion` is the picture's width by its height: what turns, turns in pixels.
    """
    angle, shear = math.radians(drawn.rotation), math.radians(drawn.shear)
    forward = np.array(
        [
            [math.cos(angle), -math.cos(angle) * math.tan(shear) - math.sin(angle)],
            [math.sin(angle), -math.sin(angle) * math.tan(shear) + math.cos(angle)],
        ]
    )
    stretch = np.diag([proportion, 1.0])
    inverse = np.linalg.inv(stretch) @ np.linalg.inv(forward * drawn.zoom) @ stretch
    offset = -inverse @ np.array([2 * drawn.shift_x, 2 * drawn.shift_y])
    flip = np.diag([-1.0 if drawn.mirror else 1.0, -1.0 if drawn.upside_down else 1.0])
    matrix: list[list[float]] = (flip @ np.column_stack([inverse, offset])).tolist()
    return matrix
