"""Generated pictures like photographs (light and shade of several sizes, and things), and copies that people make."""

import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from headstart.base.manifest import Image as Record

SIZE = (180, 140)


def photograph(seed: int, things: int = 12) -> Image.Image:
    """No two alike."""
    rng = np.random.default_rng(seed)
    total = np.zeros((SIZE[1], SIZE[0], 3))
    for cells in (2, 4, 8, 16, 32):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3)).astype(np.uint8))
        total += np.asarray(noise.resize(SIZE, Image.Resampling.BICUBIC), np.float64) / cells
    picture = Image.fromarray(((total - total.min()) / np.ptp(total) * 255).astype(np.uint8))
    _draw_things(picture, random.Random(seed), things)
    return picture


def part(seed: int) -> Image.Image:
    """A picture of one product: the same frame and bars in each, and faint marks of its own."""
    rng = np.random.default_rng(seed)
    pixels = np.full((150, 150), 150.0)
    pixels[48:52] = pixels[98:102] = 60
    pixels += np.linspace(-20, 20, 150)[:, None] * rng.normal()
    marks = Image.fromarray(rng.integers(0, 256, (12, 12)).astype(np.uint8)).resize(
        (150, 150), Image.Resampling.BICUBIC
    )
    pixels += 0.12 * np.asarray(marks, np.float64)
    for _ in range(3):
        x, y = rng.integers(0, 130, 2)
        pixels[y : y + rng.integers(5, 40), x : x + rng.integers(2, 20)] -= 50
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _draw_things(picture: Image.Image, rng: random.Random, count: int) -> None:
    pen = ImageDraw.Draw(picture)
    for _ in range(count):
        x, y = rng.randrange(-20, picture.width), rng.randrange(-20, picture.height)
        box = (x, y, x + rng.randrange(15, 80), y + rng.randrange(15, 60))
        fill, outline = ((rng.randrange(256), rng.randrange(256), rng.randrange(256)) for _ in range(2))
        rng.choice((pen.ellipse, pen.rectangle))(box, fill=fill, outline=outline, width=rng.randrange(1, 6))


def crop(picture: Image.Image) -> Image.Image:
    """A twentieth of each side less."""
    width, height = picture.size
    return picture.crop((round(width * 0.04), round(height * 0.02), round(width * 0.99), round(height * 0.97)))


def banner(picture: Image.Image) -> Image.Image:
    """A white bar with a word over the lowest eleventh."""
    changed = picture.copy()
    width, height = changed.size
    pen = ImageDraw.Draw(changed)
    pen.rectangle((0, round(height * 0.91), width, height), fill="white")
    pen.text((width // 10, round(height * 0.915)), "PHOTO", fill="black")
    return changed


def quarter_turn(picture: Image.Image) -> Image.Image:
    return picture.transpose(Image.Transpose.ROTATE_90)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "crop": crop,
    "banner": banner,
    "mirror": ImageOps.mirror,
    "quarter turn": quarter_turn,
}


def store(picture: Image.Image, root: Path, number: int) -> Record:
    """A PNG in `root`, and its record."""
    path = root / f"{number}.png"
    picture.save(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    width, height = picture.size
    return Record(id=number, file_name=path.name, width=width, height=height, sha256=sha256, source="s", label="x")
