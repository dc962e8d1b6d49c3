"""A detector with `model.tiles`, the whole pipeline: training, evaluation, export and predictions are by tiles."""

import json
from pathlib import Path

import pytest
from PIL import Image as Pillow

import tiny
from headstart.base.manifest import read_manifest, xyxy_to_xywh
from headstart.engine.input_spec import TileSpec
from headstart.engine.tiles import tile_grid
from headstart.export.predictor import Predictor

TILES = {"size": 48, "overlap": 0.5}


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiled")
    tiny.make_boxes(root)
    tiny.run(root, tiny.make_detect_params(model={"tiles": TILES}, fine_tune={"epochs": 1}))
    return root


def test_the_exported_model_finds_what_was_evaluated(tiled: Path) -> None:
    model = Predictor(tiled / "stages/export")
    assert model.input.tiles == TileSpec(size=48, overlap=0.5)
    test = read_manifest(tiled / "stages/split/test.json")
    assert tiny.read_json(tiled / "stages/export/parity.json")["pictures"] == len(test.images) * len(
        tile_grid(120, 80, model.input.tiles)
    )
    evaluated = json.loads((tiled / "stages/evaluate/predictions.json").read_text())
    counts = 0
    for image in test.images:
        (prediction,) = model.predict_files([tiled / image.file_name])
        expected = [one for one in evaluated if one["image_id"] == image.id and one["score"] >= model.threshold]
        assert prediction.boxes is not None
        counts += len(expected)
        for one in expected:
            same = [
                box
                for box in prediction.boxes
                if xyxy_to_xywh(box.corners) == pytest.approx(one["bbox"], abs=1)
                and box.score == pytest.approx(one["score"], abs=1e-3)
            ]
            assert same, one
    assert counts
    assert tiny.read_json(tiled / "stages/evaluate/metrics.json")["test"]["AP50"] > 0.2


def test_the_card_counts_tiles_as_tiles(tiled: Path) -> None:
    card = (tiled / "stages/export/model_card.md").read_text()
    parity = tiny.read_json(tiled / "stages/export/parity.json")
    assert f"boxes in {parity['pictures']} test tiles" in card
    assert " ms a tile, " in card
    assert " a tile, cut as `input.tiles` of `labels.json` says, of an upright RGB picture" in card


def test_things_stay_small_in_a_picture_of_any_size(tiled: Path, tmp_path: Path) -> None:
    """A picture four times as large, of the same things: each is found where it lies."""
    model = Predictor(tiled / "stages/export")
    test = read_manifest(tiled / "stages/split/test.json")
    image = next(image for image in test.images if any(a.image_id == image.id for a in test.annotations))
    with Pillow.open(tiled / image.file_name) as picture:
        large = Pillow.new("RGB", (480, 320), (120, 120, 120))
        large.paste(picture, (240, 160))
    large.save(tmp_path / "large.png")
    small, found = model.predict_files([tiled / image.file_name, tmp_path / "large.png"])
    assert small.boxes
    assert found.boxes
    best = max(small.boxes, key=lambda box: box.score)
    expected = [value + (240, 160)[axis % 2] for axis, value in enumerate(best.corners)]
    assert any(box.corners == pytest.approx(expected, abs=8) for box in found.boxes)


def test_options_that_tiles_exclude() -> None:
    with pytest.raises(ValueError, match=r"model\.resize: letterbox: a tile is square"):
        tiny.make_detect_params(model={"tiles": TILES, "resize": "letterbox"})
    with pytest.raises(ValueError, match=r"model\.image_size: \[64, 96\]: a tile is square; give one side, such as 96"):
        tiny.make_detect_params(model={"tiles": TILES, "image_size": [64, 96]})
    with pytest.raises(ValueError, match=r"model\.tiles: .*: only for task: detect; take it out"):
        tiny.make_params(model={**tiny.make_params().model.model_dump(), "tiles": TILES})
