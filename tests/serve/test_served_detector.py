"""A trained detector behind the server, on the page and in the static demo."""

import json
import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import chromium
import tiny
from conftest import Project
from headstart.export.predictor import Predictor, preprocess
from headstart.serve.demo import write_demo
from headstart.serve.examples import find_examples
from headstart.serve.model_info import load_model_info
from headstart.serve.server import create_model_app
from pages import ONNXRUNTIME_WEB, predict, predictions, serve_app, serve_folder

OUTCOMES = {"correct": 2, "wrong_label": 1, "second_box": 4, "nothing_there": 3, "missed": 5}


@pytest.fixture(scope="module")
def home(detect_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with boxes above and below the threshold, and one case of each kind in the gallery."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(detect_project.root / "stages", home / "stages")
    folder = home / "stages/export"
    path = home / tiny.manifest(home, "split", "test").images[0].file_name
    (prediction,) = Predictor(folder).predict_images([preprocess(path.read_bytes(), Predictor(folder).input)])
    scores = [box.score for box in prediction.boxes or ()]
    assert len(scores) > 1
    labels = tiny.read_json(folder / "labels.json") | {"threshold": (scores[0] + scores[-1]) / 2}
    (folder / "labels.json").write_text(json.dumps(labels))
    names = [image.file_name for image in tiny.manifest(home, "split", "test").images[:4]]
    rows = [
        f"1.jpg,miss,{names[0]},blue,,",
        f"2.jpg,false alarm,{names[1]},,red,0.7",
        f"3.jpg,hit,{names[0]},red,red,0.8",
        f"4.jpg,hit,{names[2]},red,red,0.8",
        f"5.jpg,second box,{names[3]},red,blue,0.6",
    ]
    header = "thumbnail,kind,file_name,label,predicted,confidence"
    (home / "stages/evaluate/gallery/cases.csv").write_text("\n".join([header, *rows, ""]))
    confusion = "actual,predicted\nred,red\nred,red\nblue,background\nbackground,red\n"
    (home / "stages/evaluate/plots/confusion.csv").write_text(confusion)
    metrics = tiny.read_json(home / "stages/evaluate/metrics.json")
    metrics["test"]["outcomes"] = OUTCOMES
    (home / "stages/evaluate/metrics.json").write_text(json.dumps(metrics))
    return home


def test_the_server_returns_boxes_and_model_info(home: Path) -> None:
    folder = home / "stages/export"
    model = Predictor(folder)
    path = home / tiny.manifest(home, "split", "test").images[0].file_name
    with TestClient(create_model_app(folder)) as client:
        response = client.post("/predict", files=[("files", ("a.png", path.read_bytes()))])
        info = client.get("/model").json()
        assert client.get(f"/{info['examples'][0]['thumbnail']}").headers["content-type"] == "image/jpeg"
    (prediction,) = response.json()["predictions"]
    (expected,) = model.predict_files([path])
    assert model.threshold is not None
    above = [box for box in prediction["boxes"] if box["score"] >= model.threshold]
    assert [(box["label"], tuple(box["box"])) for box in above] == [(b.label, b.corners) for b in expected.boxes or ()]
    assert len(prediction["boxes"]) > len(above) > 0, "boxes below the threshold are included"
    assert (prediction["label"], prediction["probabilities"]) == (None, None)
    assert (prediction["width"], prediction["height"]) == (120, 80)
    assert (info["task"], info["threshold"]) == ("detect", model.threshold)
    metrics = tiny.read_json(home / "stages/evaluate/metrics.json")["test"]
    assert {metric["name"]: metric["value"] for metric in info["metrics"]} == {
        "AP": metrics["AP"],
        "AP at IoU 0.5": metrics["AP50"],
    }
    assert [example["mistake"] for example in info["examples"]] == [
        "blue missed (false negative)",
        "red on background (false positive)",
        "second box on red, predicted as blue",
        "",
    ]
    assert info["confusion"]["background"] == {"total": 1, "actual": {"blue": 1}}
    assert info["outcomes"] == OUTCOMES


@pytest.mark.skipif(chromium.PROGRAM is None, reason=chromium.INSTALL)
def test_the_page_draws_the_boxes(page: chromium.Chromium, home: Path) -> None:
    folder = home / "stages/export"
    first = find_examples(folder)[0]
    (expected,) = Predictor(folder).predict_files([first.path])
    with serve_app(create_model_app(folder)) as url:
        page.open(url)
        assert page.js("document.querySelector('h1').textContent") == "Detect blue, red"
        assert page.js("[...document.querySelectorAll('#confusions li')].map(e => e.textContent)") == [
            "1 × blue missed (false negative)",
            "1 × red on background (false positive)",
        ]
        assert page.js("document.getElementById('outcomes').textContent").endswith(
            "2 are correct, 1 have a wrong label, 4 are a second box on an object that has one already, 3 lie where "
            "nothing is annotated; 5 objects are missed."
        )
        page.js("document.querySelector('.example').click()")
        (heading,) = predictions(page, 1)
        assert heading.startswith(f"{len(expected.boxes or ())} of ")
        truth = page.js("document.querySelector('.truth').textContent")
        assert truth.startswith("Mistake in the test at a score threshold of ")
        assert truth.endswith(" %: blue missed (false negative).")
        assert page.js("document.querySelector('.example img').alt") == "Test picture: blue missed (false negative)"
        assert page.console == []


@pytest.mark.skipif(chromium.PROGRAM is None, reason=chromium.INSTALL)
def test_the_browser_predicts_the_same_boxes(
    page: chromium.Chromium, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NMS in the graph included; the picture cropped too."""
    if not ONNXRUNTIME_WEB.is_dir():
        pytest.skip("no onnxruntime-web: make demo-assets")
    monkeypatch.chdir(ONNXRUNTIME_WEB.parents[1])
    folder = home / "stages/export"
    path = find_examples(folder)[0].path
    for how in ("squash", "crop", "letterbox"):
        labels = tiny.read_json(folder / "labels.json")
        changed = tmp_path / how
        shutil.copytree(home / "stages", changed / "stages")
        labels["input"]["resize"] = how
        (changed / "stages/export/labels.json").write_text(json.dumps(labels))
        write_demo(tmp_path / f"out-{how}", changed / "stages/export")
        assert load_model_info(changed / "stages/export", []).input["resize"] == how
        model = Predictor(changed / "stages/export")
        (expected,) = model.predict_files([path])
        min_score = (model.threshold or 0) + 1e-4  # the very threshold may lie between two equal scores
        with serve_folder(tmp_path / f"out-{how}") as url:
            page.open(url)
            prediction = predict(page, path.read_bytes())
        above = [box for box in prediction["boxes"] if box["score"] >= min_score]
        assert expected.boxes
        assert [box["label"] for box in above] == [box.label for box in expected.boxes if box.score >= min_score]
        for box, reference in zip(above, expected.boxes, strict=False):
            assert box["score"] == pytest.approx(reference.score, abs=1e-3)
            assert box["box"] == pytest.approx(list(reference.corners), abs=0.1)
