"""Pictures read as RGB, and small JPEGs of them."""

from pathlib import Path

import pytest

from headstart.base.errors import UserError
from headstart.images.thumbnail import THUMBNAIL_SIDE, encode_jpeg, make_thumbnail, read_rgb
from pictures import decoded, difference, encoded, picture, put


def test_a_thumbnail_is_a_small_jpeg_of_the_same_shape(tmp_path: Path) -> None:
    path = put(tmp_path / "a.png", encoded(picture(size=(1000, 400), mode="L")))
    assert read_rgb(path).mode == "RGB"
    small = decoded(make_thumbnail(path))
    assert small.format == "JPEG"
    assert small.size == (THUMBNAIL_SIDE, round(THUMBNAIL_SIDE * 0.4))
    assert difference(small, picture(size=(1000, 400), mode="L").convert("RGB").resize(small.size)) < 12
    assert decoded(make_thumbnail(put(tmp_path / "b.png"))).size == (40, 24), "never enlarged"


def test_a_higher_quality_is_nearer() -> None:
    low, high = (difference(decoded(encode_jpeg(picture(), quality)), picture()) for quality in (20, 95))
    assert high < low


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.png: no such file; .*`dvc repro` stores it again"):
        read_rgb(tmp_path / "x.png")


def test_a_truncated_file_is_one_line(tmp_path: Path) -> None:
    path = put(tmp_path / "x.png", encoded(picture(size=(200, 200)))[:-400])
    with pytest.raises(UserError, match=r"x\.png: cannot be decoded \(.*`dvc repro` stores it again"):
        read_rgb(path)
