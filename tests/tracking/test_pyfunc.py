"""The python_function: a detector's boxes, and what errors reveal of files on the serving machine."""

import json
import shutil
import sys
import traceback
from pathlib import Path

import pandas as pd
import pytest
from mlflow import pyfunc
from mlflow.models import Model

import tiny
from conftest import Project
from headstart.export.predictor import Predictor
from headstart.tracking import registry
from headstart.tracking.pyfunc import PyfuncPredictor


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")  # of MLflow, when it is imported
@pytest.mark.filterwarnings("ignore:Operation with range is deprecated")  # MLflow on pandas 3
def test_a_detectors_boxes(detect_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [*sys.path])  # MLflow puts the model's own code first
    labels = tiny.read_json(detect_project.root / "stages/export/labels.json") | {"threshold": 0.05}
    shutil.copytree(detect_project.root / "stages/export", tmp_path / "export")
    (tmp_path / "export/labels.json").write_text(json.dumps(labels))
    registry.save_pyfunc(tmp_path, tmp_path / "export", Model())
    model = pyfunc.load_model(str(tmp_path / "model"))
    assert model.metadata.signature.outputs.input_names() == ["boxes"]
    path = detect_project.root / "data/images/00.png"
    (row,) = model.predict(pd.DataFrame({"image": [path.read_bytes()]}))
    (expected,) = Predictor(tmp_path / "export").predict_files([path])
    assert expected.boxes
    assert [(box["label"], box["score"], tuple(box["box"])) for box in row["boxes"]] == [
        (box.label, box.score, box.corners) for box in expected.boxes
    ]


def test_none_of_these(project: Project, tmp_path: Path) -> None:
    export = tiny.copy_export(project.root, tmp_path, 0.0, [0.0, 0.0])
    path = str(project.root / tiny.manifest(project.root, "split", "test").images[0].file_name)
    (row,) = PyfuncPredictor(export).predict({"image": [path]})
    assert (row["answer"], row["unknown"], sorted(row["labels_in_set"])) == ("none of these", True, ["blue", "red"])
    assert row["probability"] == max(row["probabilities"].values())


def test_a_file_that_cannot_be_read_is_an_error(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    predictor = PyfuncPredictor(project.root / "stages/export")
    (tmp_path / "a.png").touch()
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ValueError, match="picture 0: neither base64 nor a file that can be read: "):
        predictor.predict({"image": [str(tmp_path / "a.png")]})


def test_the_error_quotes_nothing_of_a_file_that_is_no_picture(project: Project, tmp_path: Path) -> None:
    predictor = PyfuncPredictor(project.root / "stages/export")
    path = tmp_path / "shadow"
    for start, kind in ((b"", "not a picture"), (b"P6\n", "broken"), (b"<html>", "web page")):
        path.write_bytes(start + b"s3cret")
        with pytest.raises(ValueError, match=f"^picture 0: {path}: {kind}$") as caught:
            predictor.predict({"image": [str(path)]})
        assert "s3cret" not in "".join(traceback.format_exception(caught.value)), "nor in the traceback"
