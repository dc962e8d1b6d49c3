"""Cached pixels: decoded once, the same from the cache and decoded anew."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

import tiny
from conftest import Project
from engine.test_input_spec import input_spec
from headstart.base.errors import UserError
from headstart.base.manifest import Image
from headstart.engine import pixels
from headstart.engine.input_spec import InputSpec, Pixels
from headstart.engine.pixels import load_pixels, load_pixels_or_lazy, read_pixels
from headstart.engine.tiles import Tile


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
    with pytest.raises(UserError, match=r"3\.png: cannot be decoded \(no picture\): it was changed after a stage"):
        load_pixels(images, tmp_path, input_spec(), "decode")
    assert not cached(tmp_path)
    assert not list((tmp_path / ".cache/pixels").glob("*.part"))
    (tmp_path / images[3].file_name).unlink()
    with pytest.raises(UserError, match=r"3\.png: no such file; a stage stored it there: `dvc repro` stores it again"):
        load_pixels(images, tmp_path, input_spec(), "decode")
    tiny.texture(3, 1).save(tmp_path / images[3].file_name)
    assert len(load_pixels(images, tmp_path, input_spec(), "decode")) == 5


def test_the_pipeline_decodes_each_split_once(project: Project) -> None:
    sizes = sorted(np.load(path, mmap_mode="r").shape[0] for path in cached(project.root))
    assert sizes == [6, 6, 12]


@pytest.mark.parametrize("row", [0, 3, 4])
def test_a_flipped_byte_is_noticed_and_its_picture_decoded_anew(
    tmp_path: Path, row: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = stored(tmp_path)
    expected = load_pixels(images, tmp_path, input_spec(), "decode").copy()
    (file,) = cached(tmp_path)
    whole = file.read_bytes()
    start = len(whole) - 5 * 4 - (5 - row) * 48 * 48 * 3
    file.write_bytes(whole[: start + 1000] + bytes([whole[start + 1000] ^ 1]) + whole[start + 1001 :])
    read: list[str] = []

    def read_and_note(path: Path, spec: InputSpec, tile: Tile | None) -> Pixels:
        read.append(path.name)
        return read_pixels(path, spec, tile)

    monkeypatch.setattr(pixels, "read_pixels", read_and_note)
    assert np.array_equal(load_pixels(images, tmp_path, input_spec(), "decode"), expected)
    assert read == [f"{row}.png"], "the others are kept"
    said = capsys.readouterr().err.splitlines()
    name = file.relative_to(tmp_path)
    assert [line for line in said if "warning" in line] == [
        f"warning: {name}: 1 of its 5 pictures is damaged; decoded anew"
    ]
    assert file.read_bytes() == whole
    assert np.array_equal(load_pixels(images, tmp_path, input_spec(), "decode"), expected)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("damage", ["truncated", "by one byte", "emptied", "zeros", "longer", "header"])
def test_a_file_that_is_not_whole_is_made_anew(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    images = stored(tmp_path)
    expected = load_pixels(images, tmp_path, input_spec(), "decode").copy()
    (file,) = cached(tmp_path)
    whole = file.read_bytes()
    damaged = {
        "truncated": whole[: len(whole) // 2],
        "by one byte": whole[:-1],
        "emptied": b"",
        "zeros": bytes(len(whole)),
        "longer": whole + b"x",
        "header": whole.replace(b"|u1", b"|i1", 1),
    }
    file.write_bytes(damaged[damage])
    assert np.array_equal(load_pixels(images, tmp_path, input_spec(), "decode"), expected)
    assert "pixels.npy: the file is damaged; decoded anew" in capsys.readouterr().err
    assert file.read_bytes() == whole


def test_checksums_that_are_damaged_cost_their_rows_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = stored(tmp_path)
    expected = load_pixels(images, tmp_path, input_spec(), "decode").copy()
    (file,) = cached(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[:-8] + bytes(8))
    assert np.array_equal(load_pixels(images, tmp_path, input_spec(), "decode"), expected)
    assert "2 of its 5 pictures are damaged; decoded anew" in capsys.readouterr().err


def test_another_pillow_or_an_edit_of_the_code_is_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = stored(tmp_path)
    load_pixels(images, tmp_path, input_spec(), "decode")
    monkeypatch.setattr(pixels, "version", lambda _: "0.1")
    load_pixels(images, tmp_path, input_spec(), "decode")
    monkeypatch.setattr(pixels, "code_digest", lambda _: "edited")
    load_pixels(images, tmp_path, input_spec(), "decode")
    assert len(cached(tmp_path)) == 3


def test_what_the_process_uses_already_counts(tmp_path: Path) -> None:
    images, size = stored(tmp_path), 5 * 48 * 48 * 3
    first = load_pixels_or_lazy(1.5 * size / 1e9, images, tmp_path, input_spec())
    assert isinstance(first, np.memmap)
    second = load_pixels_or_lazy(1.5 * size / 1e9, images[::-1], tmp_path, input_spec())
    assert not isinstance(second, np.memmap), "both together are more than the limit"
    assert np.array_equal(second[0:5], first[::-1])
    assert isinstance(load_pixels_or_lazy(2.5 * size / 1e9, images[::-1], tmp_path, input_spec()), np.memmap)
