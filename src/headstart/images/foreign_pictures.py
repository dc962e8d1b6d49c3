"""Generated pictures of nothing that a classifier knows: noise, flat colours, gradients, stripes, checks, text."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from headstart.base.arrays import Floats

PER_KIND = 32  # pictures of each kind, of which figures are given

Pixels = npt.NDArray[np.uint8]
_LETTERS = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789"


def foreign_pictures(size: int, count: int, seed: int) -> Mapping[str, Pixels]:
    """`count` pictures of each kind, (count, size, size, 3); every second one is grey. The same seed, the same bytes.

    Args:
        size: side of the pictures, in pixels.
        count: of each kind.
        seed: of the drawing.
    """
    return {
        kind: np.stack([_draw(draw, size, number, (seed, index, number)) for number in range(count)])
        for index, (kind, draw) in enumerate(_KINDS.items())
    }


def _draw(draw: Callable[[int, np.random.Generator], Floats], size: int, number: int, key: tuple[int, ...]) -> Pixels:
    picture = draw(size, np.random.default_rng(key))
    if number % 2:
        picture = np.repeat(picture.mean(-1, keepdims=True), 3, -1)
    pixels: Pixels = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return pixels


def _two_colours(mask: Floats, rng: np.random.Generator) -> Floats:
    """A colour where the mask (size, size) is 0, another where it is 1, a mixture between."""
    one, other = rng.uniform(0, 255, (2, 3))
    return np.asarray(one + mask[..., None] * (other - one))


def _ramp(size: int, rng: np.random.Generator) -> Floats:
    """Distance (size, size) along a random direction, 0..1 from one end of the picture to the other."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:size, 0:size]
    along = np.cos(angle) * x + np.sin(angle) * y
    return np.asarray((along - along.min()) / (along.max() - along.min()))


def _flat(size: int, rng: np.random.Generator) -> Floats:
    return np.broadcast_to(rng.uniform(0, 255, 3), (size, size, 3))


def _gradient(size: int, rng: np.random.Generator) -> Floats:
    return _two_colours(_ramp(size, rng), rng)


def _stripes(size: int, rng: np.random.Generator) -> Floats:
    return _two_colours(np.floor(_ramp(size, rng) * rng.integers(3, 40)) % 2, rng)


def _checkerboard(size: int, rng: np.random.Generator) -> Floats:
    squares = np.arange(size) * int(rng.integers(2, 25)) // size
    return _two_colours(np.asarray((squares[:, None] + squares) % 2, dtype=np.float64), rng)


def _noise(size: int, rng: np.random.Generator) -> Floats:
    """Grains of 1 to 16 pixels."""
    grain = int(2 ** rng.integers(0, 5))
    grains = rng.uniform(0, 255, (-(-size // grain), -(-size // grain), 3))
    return np.asarray(grains.repeat(grain, 0).repeat(grain, 1)[:size, :size])


def _text(size: int, rng: np.random.Generator) -> Floats:
    """Lines of random letters, as a photographed page might have."""
    height = int(rng.integers(10, 28))
    mask = Image.new("L", (size, size))
    draw = ImageDraw.Draw(mask)
    font = ImageFont.load_default(height)
    for top in range(height // 2, size - height, int(1.5 * height)):
        letters = "".join(_LETTERS[number] for number in rng.integers(0, len(_LETTERS), size // 4))
        draw.text((height // 2, top), letters, fill=255, font=font)
    return _two_colours(np.asarray(mask, dtype=np.float64) / 255, rng)


_KINDS: Mapping[str, Callable[[int, np.random.Generator], Floats]] = {
    "noise": _noise,
    "flat colours": _flat,
    "gradients": _gradient,
    "stripes": _stripes,
    "checkerboards": _checkerboard,
    "text": _text,
}
