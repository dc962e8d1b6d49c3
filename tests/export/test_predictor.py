"""The exported model in onnxruntime: pictures of every kind, upright, without torch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import tiny
from conftest import Project
from headstart.base.errors import UserError
from headstart.engine.pixels import read_pixels
from headstart.export.model_prediction import FilePrediction
from headstart.export.predictor import Predictor
from pictures import encoded

TURNS = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
    5: Image.Transpose.TRANSPOSE,
}  # EXIF orientation -> how an upright picture is stored with it


@pytest.fixture(scope="module")
def model(project: Project) -> Predictor:
    return Predictor(project.root / "stages/export")


def test_a_test_picture(project: Project, model: Predictor) -> None:
    path = project.root / tiny.manifest(project.root, "split", "test").images[0].file_name
    (prediction,) = model.predict_files([path])
    output = model.classifier_output(read_pixels(path, model.input)[None])
    blue, red = output.probabilities[0]
    assert prediction == FilePrediction(
        {"blue": float(blue), "red": float(red)},
        strangeness=float(output.strangeness[0]),
        labels_in_set=prediction.labels_in_set,
        path=path,
    )
    assert prediction.label == prediction.labels_in_set[0] == ("blue" if blue > red else "red")
    thresholds = model.set_thresholds or [1, 1]
    assert set(prediction.labels_in_set) == {
        label
        for label, probability, threshold in zip(model.labels, (blue, red), thresholds, strict=True)
        if probability >= threshold or label == prediction.label
    }


def test_a_picture_may_be_none_of_the_labels_or_one_of_two(project: Project, model: Predictor, tmp_path: Path) -> None:
    path = project.root / tiny.manifest(project.root, "split", "test").images[0].file_name
    (plain,) = model.predict_files([path])
    likeliest, other = sorted(plain.probabilities, key=lambda label: -plain.probabilities[label])
    assert plain.strangeness is not None

    def under_rules(name: str, unknown_above: float, thresholds: list[float]) -> Predictor:
        return Predictor(tiny.copy_export(project.root, tmp_path / name, unknown_above, thresholds))

    low = {label: plain.probabilities[label] for label in ("blue", "red")}
    (both,) = under_rules("both", plain.strangeness + 1e-4, list(low.values())).predict_files([path])
    assert both.labels_in_set == (likeliest, other)
    assert (both.unknown, both.answer) == (False, f"{likeliest} or {other}")
    high = {likeliest: 1.0, other: low[other] + 1e-4}
    thresholds = [high["blue"], high["red"]]
    (none,) = under_rules("none", plain.strangeness - 1e-4, thresholds).predict_files([path])
    assert none.labels_in_set == (likeliest,), "the most probable one is always in the set"
    assert (none.unknown, none.answer, none.label) == (True, "none of these", likeliest)
    assert both.probabilities == none.probabilities == plain.probabilities


def test_a_model_of_an_older_version_names_its_most_probable_label(project: Project, tmp_path: Path) -> None:
    """Two outputs, and no rules in labels.json."""
    import onnx

    folder = tmp_path / "export"
    shutil.copytree(project.root / "stages/export", folder)
    labels = tiny.read_json(folder / "labels.json")
    del labels["unknown"], labels["prediction_sets"]
    (folder / "labels.json").write_text(json.dumps(labels))
    older = onnx.load(folder / "model.onnx")
    older.graph.output.remove(next(output for output in older.graph.output if output.name == "strangeness"))
    onnx.save(older, folder / "model.onnx")
    path = project.root / tiny.manifest(project.root, "split", "test").images[0].file_name
    (old,), (new,) = (
        Predictor(folder).predict_files([path]),
        Predictor(project.root / "stages/export").predict_files([path]),
    )
    assert (old.strangeness, old.unknown, old.labels_in_set) == (None, False, (new.label,))
    assert old.probabilities == pytest.approx(new.probabilities, abs=1e-6)
    assert old.answer == old.label == new.label


@pytest.mark.parametrize("orientation", TURNS)
def test_a_turned_picture_is_the_upright_one(model: Predictor, tmp_path: Path, orientation: int) -> None:
    upright = tiny.texture(5, 1)
    for kind, tolerance in (("PNG", 0.0), ("JPEG", 0.02)):
        straight, turned = tmp_path / f"straight.{kind.lower()}", tmp_path / f"turned.{kind.lower()}"
        straight.write_bytes(encoded(upright, kind))
        turned.write_bytes(encoded(upright.transpose(TURNS[orientation]), kind, orientation))
        one, other = model.predict_files([straight, turned])
        assert other.probabilities == pytest.approx(one.probabilities, abs=tolerance)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_every_kind_of_picture(model: Predictor, tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    tiny.texture(5, 1).convert(mode).save(path)
    (prediction,) = model.predict_files([path])
    assert sum(prediction.probabilities.values()) == pytest.approx(1)


def test_a_file_that_is_no_picture_has_the_reason(detect_project: Project, model: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"no picture")
    detector = Predictor(detect_project.root / "stages/export")
    for predictor, boxes in ((model, None), (detector, ())):
        (prediction,) = predictor.predict_files([path])
        assert prediction.error
        assert (prediction.probabilities, prediction.boxes, prediction.label) == ({}, boxes, "")


def test_a_detectors_boxes_are_in_pixels_of_the_picture(detect_project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    shutil.copytree(detect_project.root / "stages/export", folder)
    labels = tiny.read_json(folder / "labels.json") | {"threshold": 0.06}
    (folder / "labels.json").write_text(json.dumps(labels))
    model = Predictor(folder)
    path = detect_project.root / "data/images/00.png"
    (prediction,) = model.predict_files([path])
    assert prediction.boxes
    output = model.detector_output(read_pixels(path, model.input)[None])
    x1, y1, x2, y2 = prediction.boxes[0].corners
    assert [x1 * 96 / 120, y1 * 96 / 80, x2 * 96 / 120, y2 * 96 / 80] == pytest.approx(
        output.boxes[0, 0].tolist(), abs=0.01
    )
    assert all(box.score >= 0.06 for box in prediction.boxes)


def test_no_model_yet(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.onnx: no such file; make it: dvc repro"):
        Predictor(tmp_path)


@pytest.mark.parametrize("content", [b"", b"half of it"])
def test_a_damaged_or_missing_part_is_one_line(project: Project, tmp_path: Path, content: bytes) -> None:
    shutil.copy(project.root / "stages/export/labels.json", tmp_path)
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.onnx: damaged \(.*\); run `dvc repro` to make it anew$"):
        Predictor(tmp_path)
    (tmp_path / "labels.json").write_bytes(content)
    with pytest.raises(UserError, match=r"labels\.json: damaged \(line 1: "):
        Predictor(tmp_path)
    (tmp_path / "labels.json").unlink()
    with pytest.raises(UserError, match=r"labels\.json: no such file; make it: dvc repro"):
        Predictor(tmp_path)


def test_predicting_does_not_pay_for_torch(project: Project) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom headstart.export.predictor import Predictor\n"
        "(prediction,) = Predictor(Path('stages/export')).predict_files([Path('data/red/00.png')])\n"
        "print(prediction.label, 'torch' in sys.modules)"
    )
    source = str(Path(sys.modules["headstart"].__file__ or "").parent.parent)
    output = subprocess.check_output(
        [sys.executable, "-c", code], cwd=project.root, env={"PYTHONPATH": source}, text=True
    )
    assert output.split()[1] == "False"
