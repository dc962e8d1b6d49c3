"""Tiles of large pictures: the grid covers them, and what was found in tiles is merged to what is in the picture."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

import tiny
from headstart.base.detections import Detection
from headstart.base.manifest import Annotation, Image, Manifest, make_categories
from headstart.engine.input_spec import InputSpec, TileSpec
from headstart.engine.pixels import load_pixels, load_pixels_or_lazy, read_pixels
from headstart.engine.tile_manifest import cut_manifest, merge_detections, training_tiles
from headstart.engine.tiles import cut_tile, merge_tiles, tile_grid

SPEC = TileSpec(size=40, overlap=0.25)


def make_manifest(boxes: list[tuple[float, float, float, float]], width: int = 150, height: int = 90) -> Manifest:
    image = Image(id=7, file_name="a.png", width=width, height=height, sha256="0" * 64, source="made up")
    annotations = tuple(
        Annotation(id=n, image_id=7, category_id=1 + n % 2, bbox=box, area=box[2] * box[3])
        for n, box in enumerate(boxes, 1)
    )
    return Manifest(images=(image,), annotations=annotations, categories=make_categories(["a", "b"]))


@given(st.integers(1, 400), st.integers(1, 400), st.integers(8, 90), st.floats(0, 0.75))
@settings(max_examples=200, deadline=None)
def test_tiles_cover_the_picture_and_share_the_overlap(width: int, height: int, size: int, overlap: float) -> None:
    grid = tile_grid(width, height, TileSpec(size=size, overlap=overlap))
    assert len(set(grid)) == len(grid)
    for axis, side in ((0, width), (1, height)):
        starts = sorted({tile[axis] for tile in grid})
        assert starts[0] == 0
        assert starts[-1] == max(0, side - size), "the last one ends with the picture"
        assert all(one < other <= one + size - int(overlap * size) for one, other in itertools.pairwise(starts))
        for start in range(0, side - int(overlap * size), 7):  # a thing as large as the overlap is whole in some tile
            assert any(tile <= start and start + int(overlap * size) <= tile + size for tile in starts)


def test_a_tile_is_a_part_of_the_picture_and_grey_beyond_it(tmp_path: Path) -> None:
    picture = tiny.texture(1, 0, (100, 30))
    inside = np.asarray(cut_tile(picture, (60, 0), SPEC))
    assert np.array_equal(inside[:30], np.asarray(picture)[:, 60:])
    assert (inside[30:] == 127).all()
    picture.save(tmp_path / "a.png")
    spec = InputSpec(
        size=40, resize="squash", interpolation="bicubic", crop=1, mean=(0.5,) * 3, std=(0.5,) * 3, tiles=SPEC
    )
    tiled = cut_manifest(make_manifest([], 100, 30), SPEC)
    rows = load_pixels(tiled.images, tmp_path, spec, "decode")
    assert len(rows) == len(tile_grid(100, 30, SPEC)) == 3
    assert np.array_equal(rows[2], inside)
    assert np.array_equal(read_pixels(tmp_path / "a.png", spec, (60, 0)), inside)
    assert np.array_equal(load_pixels_or_lazy(0, tiled.images, tmp_path, spec)[:], rows)
    Pillow.new("RGB", (100, 30), "red").save(tmp_path / "a.png")
    assert (read_pixels(tmp_path / "a.png", spec, (60, 0))[0, 0] == (255, 0, 0)).all(), "a changed file is read anew"


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5), st.integers(2, 10), st.integers(2, 10)), max_size=8))
@settings(max_examples=100, deadline=None)
def test_boxes_found_in_tiles_are_those_of_the_picture(cells: list[tuple[int, int, int, int]]) -> None:
    """Things no larger than the overlap and apart from each other, found by each tile as far as it sees them."""
    places = {(x, y): (x * 15.0, y * 15.0, float(w), float(h)) for x, y, w, h in cells}
    manifest = make_manifest(list(places.values()))
    tiled = cut_manifest(manifest, SPEC)
    found = [
        Detection(image_id=a.image_id, category_id=a.category_id, bbox=a.bbox, score=0.2 + a.area / 1000)
        for a in tiled.annotations
    ]
    merged = merge_detections(found, tiled, manifest, SPEC)
    assert sorted((d["category_id"], *d["bbox"]) for d in merged) == sorted(
        (a.category_id, *a.bbox) for a in manifest.annotations
    )
    assert all(d["image_id"] == 7 for d in merged)


def merge(
    boxes: Sequence[Sequence[float]],
    scores: Sequence[float],
    labels: Sequence[int],
    lefts: Sequence[int],
    *,
    across: bool = False,
) -> Any:
    """`merge_tiles` in a picture of 150 x 40, tiles from 0, 30, 60, 90 and 110 on; boxes and labels."""
    corners = np.array([[left, 0] for left in lefts], np.int64).reshape(-1, 2)
    arrays = np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int64)
    found, left_scores, left_labels = merge_tiles(*arrays, corners, (150, 40), SPEC, across_labels=across)
    assert (np.diff(left_scores) <= 0).all()
    return found.tolist(), left_labels.tolist()


def test_the_parts_of_a_thing_larger_than_the_overlap_become_one_box() -> None:
    left_part, right_part, other = [10, 0, 40, 30], [30, 1, 45, 30], [31, 2, 38, 9]
    assert merge([left_part, right_part], [0.9, 0.8], [0, 0], [0, 30]) == ([[10, 0, 45, 30]], [0])
    assert merge([left_part, right_part], [0.9, 0.8], [0, 1], [0, 30])[1] == [0, 1], "of two labels: two things"
    assert merge([left_part, right_part], [0.9, 0.8], [0, 1], [0, 30], across=True) == ([[10, 0, 45, 30]], [0])
    assert merge([left_part, other], [0.9, 0.8], [0, 0], [0, 0])[1] == [0, 0], "boxes of one tile have gone through NMS"
    middle = [20, 2, 52, 29]
    halves = [[38, 0, 60, 30], [15, 0, 37, 30]]
    assert merge([*halves, middle], [0.9, 0.8, 0.7], [0] * 3, [40, 0, 30])[0] == [[15, 0, 60, 30]], "joined by a third"
    assert merge([left_part, right_part], [0.9, 0.3], [0, 0], [0, 30]) == ([left_part], [0]), "too unsure to enlarge it"


def test_a_thing_that_a_tile_sees_whole_keeps_its_box() -> None:
    whole, around = [32, 5, 38, 20], [30, 0, 70, 40]
    assert merge([whole, around], [0.9, 0.8], [0, 0], [0, 30]) == ([whole], [0])
    at_the_border = [0, 5, 12, 20]  # of the picture: nothing is cut off there
    assert merge([at_the_border, [0, 0, 30, 40]], [0.9, 0.8], [0, 0], [0, 30]) == ([at_the_border], [0])


def test_nothing_found() -> None:
    assert merge([], [], [], []) == ([], [])


def test_background_tiles_are_as_many_as_those_with_a_box() -> None:
    manifest = make_manifest([(3, 3, 6, 6), (100, 50, 8, 8)])
    tiled = training_tiles(manifest, SPEC)
    with_boxes = {annotation.image_id for annotation in tiled.annotations}
    assert len(tiled.images) == 2 * len(with_boxes)
    assert len(tiled.images) < len(cut_manifest(manifest, SPEC).images)
    assert tiled == training_tiles(manifest, SPEC)
    assert len(training_tiles(make_manifest([]), SPEC).images) == 1
    assert len({image.sha256 for image in tiled.images}) == len(tiled.images)
