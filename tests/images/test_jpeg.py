"""A JPEG passes if PIL decodes all of it; of most, the segments without the coded data are enough to decide that."""

import io
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.images.decode import ALLOWED_FORMATS, PictureError, configured_pil, validate_picture
from headstart.images.jpeg import strip_scan_data
from pictures import decoded, encoded


@pytest.fixture(autouse=True)
def _pil() -> Iterator[None]:
    with configured_pil():
        yield


def jpegs() -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 255, (70, 93, 3), np.uint8)
    forms: list[dict[str, Any]] = [
        {},
        {"progressive": True},
        {"restart_marker_blocks": 3},
        {"quality": 30, "optimize": True, "subsampling": 2},
    ]
    return [encoded(Image.fromarray(noise).convert(mode), "JPEG", **form) for mode in ("RGB", "L") for form in forms]


JPEGS = jpegs()


@settings(max_examples=400)
@given(
    data=st.sampled_from(JPEGS),
    changes=st.lists(st.tuples(st.integers(0, 10_000) | st.integers(0, 700), st.binary(max_size=3)), max_size=5),
    cut=st.floats(0, 1) | st.just(1.0),
    rest=st.sampled_from([b"", b"\xff\xd9", b"\xff", b"text"]),
)
def test_a_jpeg_passes_if_pil_decodes_all_of_it(
    data: bytes, changes: list[tuple[int, bytes]], cut: float, rest: bytes
) -> None:
    for number, new in changes:
        position = number % len(data)
        data = data[:position] + new + data[position + len(new) :]
    data = data[: int(len(data) * cut)] + rest
    try:
        with Image.open(io.BytesIO(data), formats=ALLOWED_FORMATS) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, IndexError, struct.error, TypeError, KeyError, ZeroDivisionError):
        with pytest.raises(PictureError):
            validate_picture(data)
    else:
        validate_picture(data)


@pytest.mark.parametrize("data", JPEGS)
def test_the_segments_are_a_small_part_of_a_jpeg(data: bytes) -> None:
    segments = strip_scan_data(data)
    assert segments is not None
    assert len(segments) < len(data) / 2
    assert decoded(segments).size == decoded(data).size
    assert strip_scan_data(data[:-2]) is None, "it ends before its end"
