"""Resizing to the network's input as timm and Pillow do it, and boxes that follow."""

import io

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageOps
from timm.data.transforms_factory import create_transform

import tiny
from headstart.engine.input_spec import (
    RESAMPLING_FILTERS,
    ImageSize,
    InputSpec,
    boxes_from_input,
    boxes_to_input,
    resize_to_input,
)
from pictures import encoded, picture

SHAPES = [(100, 100), (133, 100), (100, 133), (301, 77), (50, 91), (40, 40)]


def input_spec(
    size: ImageSize = 48, resize: str = "crop", crop: float = 0.875, interpolation: str = "bicubic"
) -> InputSpec:
    return InputSpec(
        size=size, resize=resize, interpolation=interpolation, crop=crop, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("crop", "interpolation"), [(0.875, "bicubic"), (1.0, "bilinear"), (0.9, "bicubic")])
def test_crop_is_timms_evaluation(shape: tuple[int, int], crop: float, interpolation: str) -> None:
    image = tiny.texture(sum(shape), 0, shape)
    timms = create_transform((3, 48, 48), interpolation=interpolation, crop_pct=crop, normalize=False)
    pixels = resize_to_input(image.copy(), input_spec(crop=crop, interpolation=interpolation))
    assert np.array_equal(pixels, timms(image).permute(1, 2, 0).numpy())


@pytest.mark.parametrize("shape", SHAPES)
def test_squash_is_pillows_resize(shape: tuple[int, int]) -> None:
    image = tiny.texture(sum(shape), 1, shape)
    for name, resampling in RESAMPLING_FILTERS.items():
        pixels = resize_to_input(image.copy(), input_spec(resize="squash", interpolation=name))
        assert np.array_equal(pixels, np.asarray(image.resize((48, 48), resampling)))


@pytest.mark.parametrize("shape", SHAPES)
def test_letterbox_is_pillows_pad(shape: tuple[int, int]) -> None:
    """ImageOps.pad keeps the aspect ratio too; its position of an odd remainder is another rounding."""
    image = tiny.texture(sum(shape), 1, shape)
    pixels = resize_to_input(image.copy(), input_spec(resize="letterbox"))
    contained = ImageOps.contain(image, (48, 48), Pillow.Resampling.BICUBIC)
    left, top = (48 - contained.width) // 2, (48 - contained.height) // 2
    inside = pixels[top : top + contained.height, left : left + contained.width]
    assert np.array_equal(inside, np.asarray(contained))
    assert (pixels == 127).sum() >= 3 * (48 * 48 - contained.width * contained.height)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("height_width", [(32, 56), (56, 32)])
def test_an_input_of_height_and_width(shape: tuple[int, int], height_width: tuple[int, int]) -> None:
    """Against Pillow: the whole picture, the largest one that fits, and the middle of the smallest that covers."""
    height, width = height_width
    image = tiny.texture(sum(shape), 1, shape)
    squashed, boxed, cropped = (
        resize_to_input(image.copy(), input_spec(height_width, how, crop=1)) for how in ("squash", "letterbox", "crop")
    )
    assert np.array_equal(squashed, np.asarray(image.resize((width, height), Pillow.Resampling.BICUBIC)))
    contained = ImageOps.contain(image, (width, height), Pillow.Resampling.BICUBIC)
    left, top = (width - contained.width) // 2, (height - contained.height) // 2
    inside = boxed[top : top + contained.height, left : left + contained.width]
    assert boxed.shape == (height, width, 3)
    assert np.array_equal(inside, np.asarray(contained))
    covering = ImageOps.fit(image, (width, height), Pillow.Resampling.BICUBIC)  # crops first: a pixel of rounding
    assert np.abs(cropped.astype(float) - np.asarray(covering)).mean() < 6


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    pixels = resize_to_input(tiny.texture(1, 0).convert(mode), input_spec())
    assert pixels.shape == (48, 48, 3)
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize("resize", ["squash", "crop", "letterbox"])
def test_a_large_jpeg_may_be_decoded_smaller_and_shows_the_same(resize: str) -> None:
    data = encoded(picture(3, (1200, 900)), "JPEG")
    with Pillow.open(io.BytesIO(data)) as draft, Pillow.open(io.BytesIO(data)) as decoded:
        decoded.load()  # draft mode does nothing to a picture that is decoded already
        small, full = (resize_to_input(p, input_spec(resize=resize)).astype(float) for p in (draft, decoded))
        assert draft.size != (1200, 900), "the draft was taken"
    assert np.abs(small - full).mean() < 2


@pytest.mark.parametrize("resize", ["squash", "crop", "letterbox"])
def test_boxes_follow_into_an_input_of_height_and_width(resize: str) -> None:
    spec = input_spec((60, 96), resize, crop=1)
    boxes = np.array([[60, 40, 100, 80]], np.float32)
    in_input = boxes_to_input(boxes, 160, 120, spec)
    assert boxes_from_input(in_input, 160, 120, spec) == pytest.approx(boxes, abs=1e-3)
    expected = {
        "squash": [36, 20, 60, 40],
        "letterbox": [38, 20, 58, 40],  # 80 x 60, 8 columns of grey on the left
        "crop": [36, 18, 60, 42],  # 96 x 72, of which 6 rows are cut off above
    }
    assert in_input[0].tolist() == pytest.approx(expected[resize])


@pytest.mark.parametrize("resize", ["squash", "crop", "letterbox"])
def test_boxes_go_to_the_input_and_back(resize: str) -> None:
    spec = input_spec(size=96, resize=resize, crop=0.875)
    boxes = np.array([[60, 40, 100, 80], [50, 30, 90, 110]], np.float32)
    in_input = boxes_to_input(boxes, 160, 120, spec)
    assert boxes_from_input(in_input, 160, 120, spec) == pytest.approx(boxes, abs=1e-3)
    if resize == "squash":
        assert in_input[0].tolist() == pytest.approx([36, 32, 60, 64])
    elif resize == "letterbox":  # 96 x 72, 12 rows of grey above it
        assert in_input[0].tolist() == pytest.approx([36, 36, 60, 60])
    else:  # a picture of 160 x 120 is 145 x 109 in the input's scale, of which 24 columns are cut off on the left
        (beyond,) = boxes_to_input(np.array([[0, 40, 40, 80]], np.float32), 160, 120, spec)
        assert beyond[0] == pytest.approx(-24, abs=1)
        assert beyond[2] == pytest.approx(12, abs=1)
