"""The HTTP API: predictions, errors, model info, test pictures, documentation."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import fakes
import tiny
from conftest import Project
from fakes import PNG, upload
from headstart.export.predictor import Predictor, PreprocessedImage
from headstart.serve.app import create_app
from headstart.serve.schema import ModelOutput
from headstart.serve.server import create_model_app
from pictures import encoded, picture


def test_predictions_equal_headstart_predict(client: TestClient, project: Project) -> None:
    paths = [project.root / image.file_name for image in tiny.manifest(project.root, "split", "test").images]
    predictions = client.post("/predict", files=upload(*(path.read_bytes() for path in paths))).json()["predictions"]
    expected = list(Predictor(project.root / "stages/export").predict_files(paths))
    assert [prediction["name"] for prediction in predictions] == [f"{number}.png" for number in range(len(paths))]
    for prediction, reference in zip(predictions, expected, strict=True):
        assert prediction["probabilities"] == pytest.approx(reference.probabilities, abs=1e-6)
        assert (prediction["label"], prediction["boxes"]) == (reference.label, None)
        assert (prediction["answer"], prediction["unknown"]) == (reference.answer, reference.unknown)
        assert prediction["labels_in_set"] == list(reference.labels_in_set)
        assert prediction["strangeness"] == pytest.approx(reference.strangeness, abs=1e-5)
        assert (prediction["width"], prediction["height"]) == (48, 40)
        assert prediction["milliseconds"] > 0


def test_none_of_these(project: Project, tmp_path: Path) -> None:
    """Over HTTP too, with the probabilities; and what decides it is in /model."""
    export = tiny.copy_export(project.root, tmp_path, 0.0, [0.0, 1.0])
    path = project.root / tiny.manifest(project.root, "split", "test").images[0].file_name
    with TestClient(create_model_app(export)) as client:
        (prediction,) = client.post("/predict", files=upload(path.read_bytes())).json()["predictions"]
        info = client.get("/model").json()
    assert (prediction["answer"], prediction["unknown"]) == ("none of these", True)
    assert sum(prediction["probabilities"].values()) == pytest.approx(1)
    assert (info["unknown_above"], info["set_thresholds"]) == (0.0, [0.0, 1.0])


def test_the_size_is_that_of_the_upright_picture(client: TestClient) -> None:
    rotated = encoded(picture(size=(40, 24)), "JPEG", orientation=6)
    (prediction,) = client.post("/predict", files=upload(rotated)).json()["predictions"]
    assert (prediction["width"], prediction["height"]) == (24, 40)


def test_boxes(detector_client: TestClient) -> None:
    (prediction,) = detector_client.post("/predict", files=upload(PNG)).json()["predictions"]
    assert (prediction["label"], prediction["probabilities"]) == (None, None)
    assert prediction["boxes"][0] == {"label": "dog", "score": 0.9, "box": [0, 0, 20, 24]}
    assert len(prediction["boxes"]) == 3
    assert prediction["answer"] is prediction["unknown"] is prediction["labels_in_set"] is None


BAD = {
    "text": (b"no picture", 415, "not a picture"),
    "web page": (b"<!doctype html><p>", 415, "a web page, not a picture"),
    "empty": (b"", 422, "an empty file"),
    "truncated": (encoded(picture(size=(90, 90)))[:-40], 422, "cannot be decoded"),
    "too many pixels": (encoded(picture(size=(101, 100))), 413, "101 x 100 pixels, more than 10,000"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_picture_is_an_error_that_names_it(detector_client: TestClient, kind: str) -> None:
    data, status, reason = BAD[kind]
    response = detector_client.post("/predict", files=upload(PNG, data))
    assert response.status_code == status
    assert response.json()["detail"].startswith("1.png: ")
    assert reason in response.json()["detail"]


def test_a_request_without_pictures_is_an_error(detector_client: TestClient) -> None:
    for response in (
        detector_client.post("/predict"),
        detector_client.post("/predict", data={"files": "text"}),
        detector_client.post("/predict", json={"files": []}),
    ):
        assert response.status_code == 422
        assert response.json()["detail"].startswith("no pictures: post them as multipart/form-data")


def test_a_probability_of_nan_is_an_error_and_the_next_picture_is_predicted() -> None:
    class NanClassifier(fakes.FakeDetector):
        probability = math.nan

        def predict_batch(self, images: Sequence[PreprocessedImage]) -> list[ModelOutput]:
            return [ModelOutput(probabilities={"cat": self.probability}) for _ in images]

    model = NanClassifier()
    with TestClient(create_app(model, fakes.MODEL_INFO), raise_server_exceptions=False) as client:
        assert client.post("/predict", files=upload(PNG)).status_code == 500
        model.probability = 1.0
        (prediction,) = client.post("/predict", files=upload(PNG)).json()["predictions"]
        assert prediction["probabilities"] == {"cat": 1.0}


def test_another_host_name_is_rejected(detector_client: TestClient) -> None:
    response = detector_client.get("/health", headers={"Host": "evil.example:8000"})
    assert response.status_code == 400
    said = "evil.example: not a name of this server; if it is, start it with --allow-host evil.example"
    assert response.json() == {"detail": said}


def test_model_info(client: TestClient, project: Project) -> None:
    info = client.get("/model").json()
    metrics = tiny.read_json(project.root / "stages/evaluate/metrics.json")["test"]
    assert info["labels"] == ["blue", "red"]
    assert info["metrics"][0] == {
        "name": "accuracy",
        "value": metrics["accuracy"],
        "low": metrics["accuracy_low"],
        "high": metrics["accuracy_high"],
        "note": "",
    }
    assert info["pictures"] == 6
    assert info["card"].startswith("# Model card")
    rows = tiny.read_json(project.root / "stages/evaluate/predictions.json")
    for label, column in info["confusion"].items():
        actual = [row["label"] for row in rows if row["fine_tuned"]["predicted"] == label]
        assert column == {"total": len(actual), "actual": {name: actual.count(name) for name in column["actual"]}}
    assert sum(column["total"] for column in info["confusion"].values()) == 6


def test_examples_are_test_pictures_with_their_predictions(client: TestClient, project: Project) -> None:
    examples = client.get("/model").json()["examples"]
    test = {(project.root / i.file_name).read_bytes(): i for i in tiny.manifest(project.root, "split", "test").images}
    assert examples
    for example in examples:
        data = client.get(f"/{example['picture']}").content
        assert test[data].label == example["label"]
        (prediction,) = client.post("/predict", files=upload(data)).json()["predictions"]
        assert prediction["label"] == example["predicted"]
        assert prediction["probabilities"][prediction["label"]] == pytest.approx(example["confidence"], abs=1e-5)
        thumbnail = client.get(f"/{example['thumbnail']}")
        assert thumbnail.headers["content-type"] == "image/jpeg"
    assert client.get("/examples/../../params.yaml").status_code == 404
    assert client.get("/examples/999.png").status_code == 404


def test_the_docs_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs").text
    for text in ("POST /predict", "GET /health", "GET /model", "milliseconds", "not a picture", "curl -F files=@"):
        assert text in page
    assert "<script" not in page
    assert set(re.findall(r"https?://[^/\s<\"]+", page)) == {"http://127.0.0.1:8000"}
    assert set(client.get("/openapi.json").json()["paths"]) == {"/predict", "/health", "/model"}


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/").text
    assert "Content-Security-Policy" in page
    for name in ("page.js", "page.css", "predict.js"):
        text = client.get(f"/{name}").text
        assert text
        assert "//" not in re.sub(r"// .*|import.meta.*", "", text.replace("http://www.w3.org", ""))
