"""Cached pixels: decoded once, the same from the cache and decoded anew."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

import tiny
from conftest import Project
from engine.test_input_spec import input_spec
from headstart.base.manifest import Image
from headstart.engine.pixels import load_pixels, load_pixels_or_lazy, read_pixels


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
    found = load_pixels(images, tmp_path, input_spec(), "decode")
    assert isinstance(found, np.memmap)
    assert found.shape == (5, 48, 48, 3)
    for number, image in enumerate(images):
        assert np.array_equal(found[number], read_pixels(tmp_path / image.file_name, input_spec()))
    backwards = load_pixels(images[::-1], tmp_path, input_spec(), "decode")
    assert np.array_equal(backwards, found[::-1])


def test_pictures_beyond_the_limit_are_decoded_each_time_to_the_same_pixels(tmp_path: Path) -> None:
    images = stored(tmp_path)
    size = 5 * 48 * 48 * 3
    lazy = load_pixels_or_lazy(0.9 * size / 1e9, images, tmp_path, input_spec())
    assert not (tmp_path / ".cache").exists()
    cached_pixels = load_pixels_or_lazy(1.1 * size / 1e9, images, tmp_path, input_spec())
    assert isinstance(cached_pixels, np.memmap)
    assert len(lazy) == len(cached_pixels) == 5
    for rows in (slice(1, 4), slice(3, 9), np.array([4, 0, 0, 2])):
        assert np.array_equal(lazy[rows], cached_pixels[rows])


def test_a_full_disk_is_an_error_and_no_dead_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    images = stored(tmp_path)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        load_pixels(images, tmp_path, input_spec(), "decode")
    assert not list((tmp_path / ".cache/pixels").rglob("*.part"))
    monkeypatch.undo()
    load_pixels(images, tmp_path, input_spec(), "decode")
    (file,) = cached(tmp_path)
    assert file.stat().st_blocks * 512 >= 5 * 48 * 48 * 3


def cached(root: Path) -> set[Path]:
    return set((root / ".cache/pixels").rglob("*.npy"))


def test_the_cache_is_used_again(tmp_path: Path) -> None:
    images = stored(tmp_path)
    first = load_pixels(images, tmp_path, input_spec(), "decode").copy()
    (file,) = cached(tmp_path)
    os.utime(file, (1, 1))
    for image in images:
        (tmp_path / image.file_name).unlink()
    moved = [
        image.model_copy(update={"file_name": f"elsewhere/{image.id}.png", "id": image.id + 9}) for image in images
    ]
    assert np.array_equal(load_pixels(moved, tmp_path, input_spec(), "decode"), first)
    assert file.stat().st_mtime == 1


def test_another_picture_or_size_is_another_file(tmp_path: Path) -> None:
    images = stored(tmp_path)
    load_pixels(images, tmp_path, input_spec(), "decode")
    changed = [*images[:-1], images[-1].model_copy(update={"sha256": "f" * 64})]
    tiny.texture(99, 1).save(tmp_path / images[-1].file_name)
    found = load_pixels(changed, tmp_path, input_spec(), "decode")
    assert np.array_equal(found[-1], read_pixels(tmp_path / images[-1].file_name, input_spec()))
    for other in (
        input_spec(size=32),
        input_spec(resize="squash"),
        input_spec(crop=1.0),
        input_spec(interpolation="bilinear"),
    ):
        load_pixels(images, tmp_path, other, "decode")
    assert len(cached(tmp_path)) == 6


def test_what_does_not_change_pixels_does_not_change_the_file(tmp_path: Path) -> None:
    images = stored(tmp_path)
    load_pixels(images, tmp_path, input_spec(), "decode")
    load_pixels(images, tmp_path, input_spec().model_copy(update={"mean": (0.1, 0.2, 0.3)}), "decode")
    assert len(cached(tmp_path)) == 1


def test_a_stage_that_fails_leaves_no_partial_file(tmp_path: Path) -> None:
    images = stored(tmp_path)
    (tmp_path / images[3].file_name).write_bytes(b"gone bad")
    with pytest.raises(OSError, match="cannot identify image file"):
        load_pixels(images, tmp_path, input_spec(), "decode")
    assert not cached(tmp_path)
    tiny.texture(3, 1).save(tmp_path / images[3].file_name)
    assert len(load_pixels(images, tmp_path, input_spec(), "decode")) == 5


def test_the_pipeline_decodes_each_split_once(project: Project) -> None:
    sizes = sorted(np.load(path, mmap_mode="r").shape[0] for path in cached(project.root))
    assert sizes == [6, 6, 12]
