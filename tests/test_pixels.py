"""Pixels of the network's size: as timm and Pillow make them, decoded once."""

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from timm.data.transforms_factory import create_transform

import tiny
from conftest import Project
from headstart import pixels
from headstart.coco import Image
from headstart.pixels import Input
from pictures import encoded, picture

SHAPES = [(100, 100), (133, 100), (100, 133), (301, 77), (50, 91), (40, 40)]


def wanted(size: int = 48, resize: str = "crop", crop: float = 0.875, interpolation: str = "bicubic") -> Input:
    return Input(
        size=size, resize=resize, interpolation=interpolation, crop=crop, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("crop", "interpolation"), [(0.875, "bicubic"), (1.0, "bilinear"), (0.9, "bicubic")])
def test_crop_is_timms_evaluation(shape: tuple[int, int], crop: float, interpolation: str) -> None:
    made = tiny.texture(sum(shape), 0, shape)
    timms = create_transform((3, 48, 48), interpolation=interpolation, crop_pct=crop, normalize=False)
    found = pixels.fit(made.copy(), wanted(crop=crop, interpolation=interpolation))
    assert np.array_equal(found, timms(made).permute(1, 2, 0).numpy())


@pytest.mark.parametrize("shape", SHAPES)
def test_squash_is_pillows_resize(shape: tuple[int, int]) -> None:
    made = tiny.texture(sum(shape), 1, shape)
    for name, how in pixels.FILTERS.items():
        found = pixels.fit(made.copy(), wanted(resize="squash", interpolation=name))
        assert np.array_equal(found, np.asarray(made.resize((48, 48), how)))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    found = pixels.fit(tiny.texture(1, 0).convert(mode), wanted())
    assert found.shape == (48, 48, 3)
    assert found.dtype == np.uint8


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_a_large_jpeg_may_be_decoded_smaller_and_shows_the_same(resize: str) -> None:
    data = encoded(picture(3, (1200, 900)), "JPEG")
    with Pillow.open(io.BytesIO(data)) as quick, Pillow.open(io.BytesIO(data)) as whole:
        whole.load()  # draft mode does nothing to a picture that is decoded already
        small, full = (pixels.fit(p, wanted(resize=resize)).astype(float) for p in (quick, whole))
        assert quick.size != (1200, 900), "the draft was taken"
    assert np.abs(small - full).mean() < 2


def stored(root: Path, count: int = 5) -> list[Image]:
    images = []
    for number in range(count):
        path = root / f"{number}.png"
        tiny.texture(number, number % 2).save(path)
        sha256 = f"{number}" * 64
        images.append(Image(id=number, file_name=path.name, width=48, height=40, sha256=sha256, source="s"))
    return images


def test_the_cache_holds_every_picture_in_its_order(tmp_path: Path) -> None:
    images = stored(tmp_path)
    found = pixels.load(images, tmp_path, wanted(), "decode")
    assert isinstance(found, np.memmap)
    assert found.shape == (5, 48, 48, 3)
    for number, image in enumerate(images):
        assert np.array_equal(found[number], pixels.decode(tmp_path / image.file_name, wanted()))
    backwards = pixels.load(images[::-1], tmp_path, wanted(), "decode")
    assert np.array_equal(backwards, found[::-1])


def test_too_many_to_keep_are_decoded_each_time_to_the_same_pixels(tmp_path: Path) -> None:
    images = stored(tmp_path)
    size = 5 * 48 * 48 * 3
    files = pixels.within(0.9 * size / 1e9, images, tmp_path, wanted())
    assert not (tmp_path / ".cache").exists()
    found = pixels.within(1.1 * size / 1e9, images, tmp_path, wanted())
    assert isinstance(found, np.memmap)
    assert len(files) == len(found) == 5
    for rows in (slice(1, 4), slice(3, 9), np.array([4, 0, 0, 2])):
        assert np.array_equal(files[rows], found[rows])


def test_a_full_disk_is_an_error_and_no_dead_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    images = stored(tmp_path)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        pixels.load(images, tmp_path, wanted(), "decode")
    assert not list((tmp_path / ".cache/pixels").rglob("*.part"))
    monkeypatch.undo()
    pixels.load(images, tmp_path, wanted(), "decode")
    (file,) = cached(tmp_path)
    assert file.stat().st_blocks * 512 >= 5 * 48 * 48 * 3


def cached(root: Path) -> set[Path]:
    return set((root / ".cache/pixels").rglob("*.npy"))


def test_the_cache_is_used_again(tmp_path: Path) -> None:
    images = stored(tmp_path)
    first = pixels.load(images, tmp_path, wanted(), "decode").copy()
    (file,) = cached(tmp_path)
    os.utime(file, (1, 1))
    for image in images:
        (tmp_path / image.file_name).unlink()
    moved = [
        image.model_copy(update={"file_name": f"elsewhere/{image.id}.png", "id": image.id + 9}) for image in images
    ]
    assert np.array_equal(pixels.load(moved, tmp_path, wanted(), "decode"), first)
    assert file.stat().st_mtime == 1


def test_another_picture_or_size_is_another_file(tmp_path: Path) -> None:
    images = stored(tmp_path)
    pixels.load(images, tmp_path, wanted(), "decode")
    changed = [*images[:-1], images[-1].model_copy(update={"sha256": "f" * 64})]
    tiny.texture(99, 1).save(tmp_path / images[-1].file_name)
    found = pixels.load(changed, tmp_path, wanted(), "decode")
    assert np.array_equal(found[-1], pixels.decode(tmp_path / images[-1].file_name, wanted()))
    for other in (wanted(size=32), wanted(resize="squash"), wanted(crop=1.0), wanted(interpolation="bilinear")):
        pixels.load(images, tmp_path, other, "decode")
    assert len(cached(tmp_path)) == 6


def test_what_does_not_change_pixels_does_not_change_the_file(tmp_path: Path) -> None:
    images = stored(tmp_path)
    pixels.load(images, tmp_path, wanted(), "decode")
    pixels.load(images, tmp_path, wanted().model_copy(update={"mean": (0.1, 0.2, 0.3)}), "decode")
    assert len(cached(tmp_path)) == 1


def test_a_stage_that_is_killed_leaves_no_half_cache(tmp_path: Path) -> None:
    images = stored(tmp_path)
    (tmp_path / images[3].file_name).write_bytes(b"gone bad")
    with pytest.raises(OSError, match="cannot identify image file"):
        pixels.load(images, tmp_path, wanted(), "decode")
    assert not cached(tmp_path)
    tiny.texture(3, 1).save(tmp_path / images[3].file_name)
    assert len(pixels.load(images, tmp_path, wanted(), "decode")) == 5


def test_the_pipeline_decodes_each_split_once(project: Project) -> None:
    sizes = sorted(np.load(path, mmap_mode="r").shape[0] for path in cached(project.root))
    assert sizes == [6, 6, 12]
