"""A detector whose input has a height and a width, `model.image_size: [64, 96]`: the whole pipeline."""

import json
from pathlib import Path

import pytest

import tiny
from headstart.base.manifest import read_manifest, xyxy_to_xywh
from headstart.export.predictor import Predictor


@pytest.mark.parametrize("detector", ["fcos", "fasterrcnn"])
def test_the_exported_model_finds_what_was_evaluated(detector: str, tmp_path: Path) -> None:
    """Pictures of 120 x 80 keep their aspect ratio; training has mosaics and shifts."""
    tiny.make_boxes(tmp_path)
    model = {"detector": detector, "image_size": [64, 96], "resize": "letterbox"}
    tiny.run(tmp_path, tiny.make_detect_params(model=model, augment={"shift": 0.1}, train_head={"epochs": 20}))
    predictor = Predictor(tmp_path / "stages/export")
    assert predictor.input.shape == (64, 96)
    assert predictor.threshold is not None
    evaluated = json.loads((tmp_path / "stages/evaluate/predictions.json").read_text())
    matched = 0
    for image in read_manifest(tmp_path / "stages/split/test.json").images:
        (prediction,) = predictor.predict_files([tmp_path / image.file_name])
        assert prediction.boxes is not None
        for one in evaluated:
            if one["image_id"] == image.id and one["score"] >= predictor.threshold + 1e-3:
                matched += 1
                assert any(xyxy_to_xywh(box.corners) == pytest.approx(one["bbox"], abs=1) for box in prediction.boxes)
    assert matched
    assert tiny.read_json(tmp_path / "stages/evaluate/metrics.json")["test"]["AP50"] > 0.2
    assert "64 x 96 px (letterbox)" in (tmp_path / "stages/evaluate/report.html").read_text()
    assert "(batch, 64, 96, 3)" in (tmp_path / "stages/export/model_card.md").read_text()


@pytest.mark.parametrize("size", [[64], [64, 96, 3], [64, 8], [64, "wide"], []])
def test_sizes_that_are_none(size: object) -> None:
    with pytest.raises(ValueError, match=r"image_size"):
        tiny.make_detect_params(model={"image_size": size})


def test_equal_sides_are_a_square() -> None:
    assert tiny.make_detect_params(model={"image_size": [64, 64]}).model.image_size == 64


def test_a_classifiers_input_is_square() -> None:
    with pytest.raises(
        ValueError, match=r"model\.image_size: \[64, 96\]: a classifier's input is square; give one side"
    ):
        tiny.make_params(model={**tiny.make_params().model.model_dump(), "image_size": [64, 96]})
