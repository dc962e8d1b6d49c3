"""A draw belongs to its key, files and batches are changed alike, and stored copies are what the manifest says."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torch import Tensor
from torchvision.transforms.v2 import functional as V

import tiny
from conftest import Project
from headstart.augment import SHEET_COLUMNS, SHEET_ROWS, SHEET_SIDE, SHEET_TOP
from headstart.changes import Draw, apply, apply_batch, draw
from headstart.files import sha256
from headstart.params import AugmentParams
from pictures import difference, picture

NOTHING: dict[str, Any] = {"horizontal_flip": 0.0}
SIDE = 64
# What each may differ by, as a mean over a smooth picture on a scale of 255: `apply` rounds to whole numbers.
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


def both(pixels: Tensor, draws: list[Draw]) -> tuple[Tensor, Tensor]:
    """What the two ways make of one picture, as floats in 0..255."""
    files = torch.stack([apply(pixels, drawn) for drawn in draws]).float()
    batch = apply_batch(pixels.float().div(255).expand(len(draws), -1, -1, -1), draws) * 255
    return files, batch


def test_a_draw_belongs_to_its_key() -> None:
    some = params(rotation=10, shift=0.1, brightness=0.2, hue=0.1, noise=0.1, vertical_flip=0.5)
    first = [draw(some, 0, name, "epoch 1") for name in "abc"]
    assert [draw(some, 0, name, "epoch 1") for name in "cba"] == first[::-1]
    others = [draw(some, 0, "a", "epoch 2"), draw(some, 1, "a", "epoch 1"), draw(some, 0, "a", 0)]
    assert len({*first, *others}) == 6


def test_draws_keep_to_their_ranges_and_use_them() -> None:
    some = params(rotation=10, shift=0.1, zoom=0.2, shear=5, brightness=0.3, contrast=0.4, saturation=0.5, hue=0.1)
    draws = [draw(some, "key", number) for number in range(400)]
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
        values = np.array([getattr(drawn, name) for drawn in draws]) - middle
        assert np.abs(values).max() <= amount
        assert values.min() < -0.9 * amount
        assert values.max() > 0.9 * amount
        assert abs(values.mean()) < 0.1 * amount


@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_flips_happen_as_often_as_asked(chance: float) -> None:
    draws = [draw(params(horizontal_flip=chance, vertical_flip=chance), number) for number in range(1000)]
    assert abs(sum(drawn.mirror for drawn in draws) / 1000 - chance) <= 0.05 * (0 < chance < 1)
    assert abs(sum(drawn.upside_down for drawn in draws) / 1000 - chance) <= 0.05 * (0 < chance < 1)
    assert chance in (0, 1) or any(drawn.mirror != drawn.upside_down for drawn in draws)


@pytest.mark.parametrize(("name", "amount"), AMOUNTS.items())
def test_files_and_batches_are_changed_alike(name: str, amount: float) -> None:
    files, batch = both(smooth(), [draw(params(**{name: amount}), "alike", number) for number in range(8)])
    apart = (files - batch).abs()
    assert apart.mean((1, 2, 3)).max() < 1
    assert apart.max() < 4
    assert (files - smooth()).abs().mean() > 0.5, "something was changed"


def test_files_and_batches_are_changed_alike_by_everything_that_moves_pixels() -> None:
    some = params(horizontal_flip=0.5, vertical_flip=0.5, rotation=20, shift=0.1, zoom=0.2, shear=10)
    files, batch = both(smooth(), [draw(some, "moved", number) for number in range(20)])
    apart = (files - batch).abs()
    assert apart.mean((1, 2, 3)).max() < 1  # at the border two ways to mirror differ by a pixel
    assert apart.max() < 12


def test_each_picture_of_a_batch_has_its_own_change() -> None:
    some = params(rotation=20, brightness=0.4, contrast=0.3, saturation=0.4, hue=0.2, noise=0.05, horizontal_flip=0.5)
    pictures = torch.stack([smooth(seed).float() / 255 for seed in range(5)])
    draws = [draw(some, number) for number in range(5)]
    together = apply_batch(pictures, draws)
    for number in range(5):
        alone = apply_batch(pictures[number : number + 1], draws[number : number + 1])
        torch.testing.assert_close(together[number], alone[0], atol=1e-6, rtol=0)


def test_flips_are_exact() -> None:
    for size in ((SIDE, SIDE), (40, 24)):
        pixels = smooth(5, size)
        assert torch.equal(apply(pixels, draw(params(horizontal_flip=1), 0)), pixels.flip(2))
        assert torch.equal(apply(pixels, draw(params(vertical_flip=1), 0)), pixels.flip(1))
        turned = apply(pixels, draw(params(vertical_flip=1, horizontal_flip=1), 0))
        assert torch.equal(turned, pixels.flip(1, 2))
    batch = smooth(5)[None].float() / 255
    torch.testing.assert_close(apply_batch(batch, [draw(params(horizontal_flip=1), 0)]), batch.flip(3))
    torch.testing.assert_close(apply_batch(batch, [draw(params(vertical_flip=1), 0)]), batch.flip(2))


def test_nothing_asked_nothing_changed() -> None:
    nothing = draw(params(), "whatever")
    assert torch.equal(apply(smooth(), nothing), smooth())
    batch = smooth()[None].float() / 255
    assert torch.equal(apply_batch(batch, [nothing]), batch)


def neutral(**changes: Any) -> Draw:
    none = draw(params(), 0).__dict__
    return Draw(**(none | changes))


@pytest.mark.parametrize("size", [(SIDE, SIDE), (80, 48)])
def test_where_a_change_goes(size: tuple[int, int]) -> None:
    pixels = smooth(4, size)
    right = apply(pixels, neutral(shift_x=0.25))
    quarter = size[0] // 4
    assert torch.equal(right[..., quarter:], pixels[..., :-quarter])
    down = apply(pixels, neutral(shift_y=0.25))
    quarter = size[1] // 4
    assert torch.equal(down[:, quarter:], pixels[:, :-quarter])


def test_zoom_shows_the_middle_larger_and_rotation_turns_clockwise() -> None:
    dot = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
    dot[:, 30:34, 46:50] = 255  # right of the middle, 16 pixels from it

    def centre(pixels: Tensor) -> tuple[float, float]:
        bright = pixels[0].double()
        rows, columns = bright.sum(1), bright.sum(0)
        along = torch.arange(SIDE) + 0.5
        return float((rows * along).sum() / rows.sum()), float((columns * along).sum() / columns.sum())

    for changed in (apply, lambda p, d: apply_batch(p[None].float() / 255, [d])[0] * 255):
        assert centre(changed(dot, neutral(zoom=1.5))) == pytest.approx((32, 32 + 24), abs=0.5)
        assert centre(changed(dot, neutral(rotation=30.0))) == pytest.approx(
            (32 + 16 * math.sin(math.radians(30)), 32 + 16 * math.cos(math.radians(30))), abs=0.5
        )


@pytest.mark.parametrize("channels", [1, 3])
def test_light_and_colour_are_torchvisions(channels: int) -> None:
    """Byte for byte what torchvision's functions make, one after the other."""
    for seed in range(20):
        pixels, some = smooth(seed, (40, 24))[:channels], neutral(brightness=0.7 + seed / 20, contrast=1.3 - seed / 30)
        some = replace(some, saturation=1 + (seed - 10) / 15, hue=0.1 if seed % 2 else 0)
        wanted = V.adjust_contrast(V.adjust_brightness(pixels, some.brightness), some.contrast)
        if channels == 3:
            wanted = V.adjust_hue(V.adjust_saturation(wanted, some.saturation), some.hue)
        assert torch.equal(apply(pixels, some), wanted)


def test_light_and_noise_have_their_size() -> None:
    grey = torch.full((3, SIDE, SIDE), 100, dtype=torch.uint8)
    assert (apply(grey, neutral(brightness=1.2)) == 120).all()
    assert (apply(grey, neutral(contrast=1.9)).float() - 100).abs().max() <= 1
    noisy = apply(grey, neutral(noise=0.05, seed=1)).float()
    assert noisy.std() == pytest.approx(0.05 * 255, rel=0.03)
    assert noisy.mean() == pytest.approx(100, abs=0.5)
    assert torch.equal(noisy, apply(grey, neutral(noise=0.05, seed=1)).float())
    assert not torch.equal(noisy, apply(grey, neutral(noise=0.05, seed=2)).float())
    coloured = torch.tensor([200, 100, 50], dtype=torch.uint8).reshape(3, 1, 1).expand(3, 8, 8)
    assert apply(coloured, neutral(saturation=0.0)).float().std(0).max() < 1


def test_what_comes_in_at_the_border_is_the_picture_mirrored() -> None:
    pixels = smooth(6)
    shifted = apply(pixels, neutral(shift_x=0.25))
    assert torch.equal(shifted[..., :16], pixels[..., 1:17].flip(2))
    assert (apply(torch.full_like(pixels, 77), neutral(rotation=45.0, zoom=0.8, shift_x=0.3)) == 77).all(), "no black"


@pytest.mark.parametrize("size", [(2, 2), (8, 200), (200, 8)])
def test_thin_pictures_survive(size: tuple[int, int]) -> None:
    pixels = smooth(1, size)
    changed = apply(pixels, neutral(rotation=180.0, shift_x=1.0, shift_y=-1.0, zoom=0.05, shear=60.0, hue=0.5))
    assert changed.shape == pixels.shape


def test_stored_copies_stand_in_the_manifest(project: Project) -> None:
    before = tiny.manifest(project.root, "split", "train")
    after = tiny.manifest(project.root, "augment", "train")
    originals = [image for image in after.images if image.copy_of is None]
    copies = [image for image in after.images if image.copy_of is not None]
    assert originals == list(before.images)
    assert [copy.copy_of for copy in copies] == [image.id for image in originals]
    assert len({image.id for image in after.images}) == 24
    for original, copy in zip(originals, copies, strict=True):
        path = project.root / copy.file_name
        assert path.parent == project.root / "stages/augment/images"
        assert sha256(path) == copy.sha256 != original.sha256
        same = {"id", "file_name", "sha256", "copy_of"}
        assert copy.model_dump(exclude=same) == original.model_dump(exclude=same)
        with Pillow.open(path) as stored, Pillow.open(project.root / original.file_name) as first:
            assert (stored.size, stored.format) == ((copy.width, copy.height), "PNG")
            assert difference(stored, first) > 10
    assert tiny.read_json(project.root / "stages/augment/metrics.json") == {"originals": 12, "copies": 12}
    assert len(list((project.root / "stages/augment/images").iterdir())) == 12


def test_val_and_test_are_left_alone(project: Project) -> None:
    names = {image.file_name for image in tiny.manifest(project.root, "fetch", "annotations").images}
    for name in ("val", "test"):
        images = tiny.manifest(project.root, "split", name).images
        assert {image.file_name for image in images} <= names
        assert all(sha256(project.root / image.file_name) == image.sha256 for image in images)
        held = {image.id for image in images}
        assert not held & {image.copy_of for image in tiny.manifest(project.root, "augment", "train").images}


def test_a_stored_copy_is_the_draw_of_its_picture_and_number(project: Project) -> None:
    train = tiny.manifest(project.root, "augment", "train").images
    original, copy = train[0], next(image for image in train if image.copy_of == train[0].id)
    with Pillow.open(project.root / original.file_name) as opened:
        pixels = torch.from_numpy(np.asarray(opened).copy()).permute(2, 0, 1)
    drawn = draw(project.params.augment, project.params.seed, original.sha256, 0)
    with Pillow.open(project.root / copy.file_name) as stored:
        assert np.array_equal(np.asarray(stored), apply(pixels, drawn).permute(1, 2, 0).numpy())


def test_the_preview_opens(project: Project) -> None:
    with Pillow.open(project.root / "stages/augment/preview.jpg") as sheet:
        sheet.load()
        assert (sheet.format, sheet.height) == ("JPEG", SHEET_TOP + SHEET_ROWS * (SHEET_SIDE + 4))
        assert sheet.width > SHEET_COLUMNS * SHEET_SIDE
        assert np.asarray(sheet).std() > 20


def stage(root: Path, **changes: Any) -> list[tuple[str, Path]]:
    """Run up to augment on two kinds of files; (mode, path) of the stored copies."""
    tiny.make_pictures(root, 4)
    for number in range(4):
        tiny.texture(50 + number, 0).convert("L").save(root / f"data/red/grey-{number}.png")
        tiny.texture(60 + number, 1).save(root / f"data/blue/photo-{number}.jpg", quality=95)
    tiny.run(root, tiny.make_params(augment=changes), "fetch", "split", "augment")
    found = []
    for image in tiny.manifest(root, "augment", "train").images:
        if image.copy_of:
            with Pillow.open(root / image.file_name) as opened:
                found.append((opened.mode, root / image.file_name))
    return found


def test_grey_stays_grey_and_jpeg_stays_jpeg(tmp_path: Path) -> None:
    copies = stage(tmp_path, copies=3, noise=0)
    assert {mode for mode, path in copies} == {"L", "RGB"}
    assert {path.suffix for _, path in copies} == {".png", ".jpg"}
    assert len({path.read_bytes() for _, path in copies}) == len(copies) == 24


def test_no_copies(tmp_path: Path) -> None:
    assert stage(tmp_path, copies=0) == []
    originals = tiny.manifest(tmp_path, "split", "train").images
    assert tiny.manifest(tmp_path, "augment", "train").images == originals
    assert (tmp_path / "stages/augment/images").is_dir(), "DVC wants every out to be there"
