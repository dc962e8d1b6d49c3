"""Parameters depend on their key alone; images and batches are transformed alike, colours as by torchvision."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from headstart.augment.transforms import SampledTransform, sample_transform, transform_batch, transform_image
from headstart.params.root import AugmentParams
from pictures import picture

NOTHING: dict[str, Any] = {"horizontal_flip": 0.0}
SIDE = 64
# Largest amounts of each transform in these tests.
AMOUNTS = {
    "horizontal_flip": 1.0,
    "vertical_flip": 1.0,
    "rotation": 20.0,
    "shift": 0.2,
    "zoom": 0.3,
    "shear": 15.0,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.9,
    "hue": 0.2,
    "noise": 0.05,
}


def params(**amounts: float) -> AugmentParams:
    return AugmentParams.model_validate(NOTHING | amounts)


def smooth(seed: int = 3, size: tuple[int, int] = (SIDE, SIDE)) -> Tensor:
    return torch.from_numpy(np.asarray(picture(seed, size)).copy()).permute(2, 0, 1)


def both(pixels: Tensor, transforms: list[SampledTransform]) -> tuple[Tensor, Tensor]:
    """What the two ways make of one picture, as floats in 0..255."""
    files = torch.stack([transform_image(pixels, transform) for transform in transforms]).float()
    batch = transform_batch(pixels.float().div(255).expand(len(transforms), -1, -1, -1), transforms) * 255
    return files, batch


def test_parameters_depend_on_the_key_alone() -> None:
    amounts = params(rotation=10, shift=0.1, brightness=0.2, hue=0.1, noise=0.1, vertical_flip=0.5)
    first = [sample_transform(amounts, 0, name, "epoch 1") for name in "abc"]
    assert [sample_transform(amounts, 0, name, "epoch 1") for name in "cba"] == first[::-1]
    others = [
        sample_transform(amounts, 0, "a", "epoch 2"),
        sample_transform(amounts, 1, "a", "epoch 1"),
        sample_transform(amounts, 0, "a", 0),
    ]
    assert len({*first, *others}) == 6


def test_parameters_fill_their_ranges() -> None:
    amounts = params(rotation=10, shift=0.1, zoom=0.2, shear=5, brightness=0.3, contrast=0.4, saturation=0.5, hue=0.1)
    transforms = [sample_transform(amounts, "key", number) for number in range(400)]
    for name, middle, amount in (
        ("rotation", 0, 10),
        ("shift_x", 0, 0.1),
        ("shift_y", 0, 0.1),
        ("zoom", 1, 0.2),
        ("shear", 0, 5),
        ("brightness", 1, 0.3),
        ("contrast", 1, 0.4),
        ("saturation", 1, 0.5),
        ("hue", 0, 0.1),
    ):
        values = np.array([getattr(transform, name) for transform in transforms]) - middle
        assert np.abs(values).max() <= amount
        assert values.min() < -0.9 * amount
        assert values.max() > 0.9 * amount
        assert abs(values.mean()) < 0.1 * amount


@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_flips_happen_as_often_as_asked(chance: float) -> None:
    transforms = [
        sample_transform(params(horizontal_flip=chance, vertical_flip=chance), number) for number in range(1000)
    ]
    assert abs(sum(transform.horizontal_flip for transform in transforms) / 1000 - chance) <= 0.05 * (0 < chance < 1)
    assert abs(sum(transform.vertical_flip for transform in transforms) / 1000 - chance) <= 0.05 * (0 < chance < 1)
    assert chance in (0, 1) or any(transform.horizontal_flip != transform.vertical_flip for transform in transforms)


@pytest.mark.parametrize(("name", "amount"), AMOUNTS.items())
def test_images_and_batches_agree(name: str, amount: float) -> None:
    files, batch = both(smooth(), [sample_transform(params(**{name: amount}), "alike", number) for number in range(8)])
    apart = (files - batch).abs()
    assert apart.mean((1, 2, 3)).max() < 1
    assert apart.max() < 4
    assert (files - smooth()).abs().mean() > 0.5, "something was changed"


def test_images_and_batches_agree_in_geometry() -> None:
    amounts = params(horizontal_flip=0.5, vertical_flip=0.5, rotation=20, shift=0.1, zoom=0.2, shear=10)
    files, batch = both(smooth(), [sample_transform(amounts, "moved", number) for number in range(20)])
    apart = (files - batch).abs()
    assert apart.mean((1, 2, 3)).max() < 1  # at the border two ways to mirror differ by a pixel
    assert apart.max() < 12


def test_each_picture_of_a_batch_has_its_own_transform() -> None:
    amounts = params(
        rotation=20, brightness=0.4, contrast=0.3, saturation=0.4, hue=0.2, noise=0.05, horizontal_flip=0.5
    )
    pictures = torch.stack([smooth(seed).float() / 255 for seed in range(5)])
    transforms = [sample_transform(amounts, number) for number in range(5)]
    together = transform_batch(pictures, transforms)
    for number in range(5):
        alone = transform_batch(pictures[number : number + 1], transforms[number : number + 1])
        torch.testing.assert_close(together[number], alone[0], atol=1e-6, rtol=0)


def test_flips_are_exact() -> None:
    for size in ((SIDE, SIDE), (40, 24)):
        pixels = smooth(5, size)
        assert torch.equal(transform_image(pixels, sample_transform(params(horizontal_flip=1), 0)), pixels.flip(2))
        assert torch.equal(transform_image(pixels, sample_transform(params(vertical_flip=1), 0)), pixels.flip(1))
        turned = transform_image(pixels, sample_transform(params(vertical_flip=1, horizontal_flip=1), 0))
        assert torch.equal(turned, pixels.flip(1, 2))
    batch = smooth(5)[None].float() / 255
    torch.testing.assert_close(transform_batch(batch, [sample_transform(params(horizontal_flip=1), 0)]), batch.flip(3))
    torch.testing.assert_close(transform_batch(batch, [sample_transform(params(vertical_flip=1), 0)]), batch.flip(2))


def test_a_neutral_transform_changes_nothing() -> None:
    nothing = sample_transform(params(), "whatever")
    assert torch.equal(transform_image(smooth(), nothing), smooth())
    batch = smooth()[None].float() / 255
    assert torch.equal(transform_batch(batch, [nothing]), batch)


def neutral(**changes: Any) -> SampledTransform:
    none = sample_transform(params(), 0).__dict__
    return SampledTransform(**(none | changes))


@pytest.mark.parametrize("size", [(SIDE, SIDE), (80, 48)])
def test_directions_of_shifts(size: tuple[int, int]) -> None:
    pixels = smooth(4, size)
    right = transform_image(pixels, neutral(shift_x=0.25))
    quarter = size[0] // 4
    assert torch.equal(right[..., quarter:], pixels[..., :-quarter])
    down = transform_image(pixels, neutral(shift_y=0.25))
    quarter = size[1] // 4
    assert torch.equal(down[:, quarter:], pixels[:, :-quarter])


def test_zoom_enlarges_and_rotation_is_clockwise() -> None:
    dot = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
    dot[:, 30:34, 46:50] = 255  # right of the middle, 16 pixels from it

    def centre(pixels: Tensor) -> tuple[float, float]:
        bright = pixels[0].double()
        rows, columns = bright.sum(1), bright.sum(0)
        along = torch.arange(SIDE) + 0.5
        return float((rows * along).sum() / rows.sum()), float((columns * along).sum() / columns.sum())

    for changed in (transform_image, lambda p, d: transform_batch(p[None].float() / 255, [d])[0] * 255):
        assert centre(changed(dot, neutral(zoom=1.5))) == pytest.approx((32, 32 + 24), abs=0.5)
        assert centre(changed(dot, neutral(rotation=30.0))) == pytest.approx(
            (32 + 16 * math.sin(math.radians(30)), 32 + 16 * math.cos(math.radians(30))), abs=0.5
        )


@pytest.mark.parametrize("channels", [1, 3])
def test_colour_steps_equal_torchvisions(channels: int) -> None:
    """Byte for byte what torchvision's functions make, one after the other."""
    for seed in range(20):
        pixels, transform = (
            smooth(seed, (40, 24))[:channels],
            neutral(brightness=0.7 + seed / 20, contrast=1.3 - seed / 30),
        )
        transform = replace(transform, saturation=1 + (seed - 10) / 15, hue=0.1 if seed % 2 else 0)
        expected = V.adjust_contrast(V.adjust_brightness(pixels, transform.brightness), transform.contrast)
        if channels == 3:
            expected = V.adjust_hue(V.adjust_saturation(expected, transform.saturation), transform.hue)
        assert torch.equal(transform_image(pixels, transform), expected)


def test_amounts_of_colour_steps_and_noise() -> None:
    grey = torch.full((3, SIDE, SIDE), 100, dtype=torch.uint8)
    assert (transform_image(grey, neutral(brightness=1.2)) == 120).all()
    assert (transform_image(grey, neutral(contrast=1.9)).float() - 100).abs().max() <= 1
    noisy = transform_image(grey, neutral(noise=0.05, seed=1)).float()
    assert noisy.std() == pytest.approx(0.05 * 255, rel=0.03)
    assert noisy.mean() == pytest.approx(100, abs=0.5)
    assert torch.equal(noisy, transform_image(grey, neutral(noise=0.05, seed=1)).float())
    assert not torch.equal(noisy, transform_image(grey, neutral(noise=0.05, seed=2)).float())
    coloured = torch.tensor([200, 100, 50], dtype=torch.uint8).reshape(3, 1, 1).expand(3, 8, 8)
    assert transform_image(coloured, neutral(saturation=0.0)).float().std(0).max() < 1


def test_the_border_is_filled_with_the_mirrored_picture() -> None:
    pixels = smooth(6)
    shifted = transform_image(pixels, neutral(shift_x=0.25))
    assert torch.equal(shifted[..., :16], pixels[..., 1:17].flip(2))
    assert (transform_image(torch.full_like(pixels, 77), neutral(rotation=45.0, zoom=0.8, shift_x=0.3)) == 77).all(), (
        "no black"
    )


@pytest.mark.parametrize("size", [(128, 64), (64, 128), (96, 64)])
def test_the_border_of_a_picture_that_is_no_square(size: tuple[int, int]) -> None:
    white = torch.full_like(smooth(6, size), 255)
    for rotation in (30.0, -60.0, 10.0):
        assert (transform_image(white, neutral(rotation=rotation)) >= 254).all(), "no black corner"


@pytest.mark.parametrize("size", [(2, 2), (8, 200), (200, 8)])
def test_thin_pictures_survive(size: tuple[int, int]) -> None:
    pixels = smooth(1, size)
    changed = transform_image(
        pixels, neutral(rotation=180.0, shift_x=1.0, shift_y=-1.0, zoom=0.05, shear=60.0, hue=0.5)
    )
    assert changed.shape == pixels.shape
