"""The static demo in a real browser: the same page, and predictions equal to onnxruntime's on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import chromium
import tiny
from conftest import Project
from headstart.base.errors import UserError
from headstart.export.predictor import Predictor
from headstart.serve.demo import write_demo
from headstart.serve.examples import find_examples
from headstart.serve.model_info import load_model_info
from pages import (
    DROP,
    ONNXRUNTIME_WEB,
    TRANSFER,
    predict,
    predictions,
    serve_folder,
)
from pictures import encoded

needs_chromium = pytest.mark.skipif(chromium.PROGRAM is None, reason=chromium.INSTALL)


@pytest.fixture(scope="module")
def url(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not ONNXRUNTIME_WEB.is_dir():
        pytest.skip("no onnxruntime-web: make demo-assets")
    out = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ONNXRUNTIME_WEB.parents[1])
        single = tiny.copy_export(project.root, tmp_path_factory.mktemp("single"), None, None)
        write_demo(out, single)
    with serve_folder(out) as url:
        yield url


@needs_chromium
def test_the_demo_predicts_as_onnxruntime_does(
    page: chromium.Chromium,
    url: str,
    project: Project,
    tmp_path: Path,
) -> None:
    """PNG to 0.001. JPEG to 0.02: Pillow decodes a large one at half its size, and the browser has its own decoder."""
    model = Predictor(project.root / "stages/export")
    page.open(url)
    assert "not uploaded" in page.js("document.getElementById('privacy').textContent")
    upright = tiny.texture(5, 1, (200, 150))
    rotated = upright.transpose(Image.Transpose.ROTATE_90)
    transparent = upright.convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(transparent.size))
    cases = {
        "plain.png": (encoded(upright), 0.001),
        "grey.png": (encoded(upright.convert("L")), 0.001),
        "transparent.png": (encoded(transparent), 0.005),
        "plain.jpg": (encoded(upright, "JPEG"), 0.02),
        "rotated.jpg": (encoded(rotated, "JPEG", orientation=6), 0.02),
    }
    for name, (data, tolerance) in cases.items():
        (tmp_path / name).write_bytes(data)
        (expected,) = model.predict_files([tmp_path / name])
        prediction = predict(page, data)
        assert (prediction["width"], prediction["height"]) == (200, 150), name
        assert prediction["probabilities"] == pytest.approx(expected.probabilities, abs=tolerance), name
        assert prediction["label"] == expected.label, name
        assert prediction["strangeness"] == pytest.approx(expected.strangeness, abs=max(tolerance, 0.001)), name
        assert (prediction["answer"], prediction["unknown"]) == (expected.label, False), name
        assert prediction["labels_in_set"] == [expected.label], name


@needs_chromium
@pytest.mark.parametrize("unknown", [False, True])
def test_the_demo_says_what_headstart_predict_says(
    page: chromium.Chromium, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unknown: bool
) -> None:
    """Rules between the figures of two pictures: each falls on one side of them."""
    if not ONNXRUNTIME_WEB.is_dir():
        pytest.skip("no onnxruntime-web: make demo-assets")
    monkeypatch.chdir(ONNXRUNTIME_WEB.parents[1])
    paths = [tmp_path / f"{seed}.png" for seed in range(2)]
    for seed, path in enumerate(paths):
        tiny.texture(70 + seed, seed).save(path)
    plain = list(Predictor(project.root / "stages/export").predict_files(paths))
    between = sum(prediction.strangeness or 0 for prediction in plain) / 2
    thresholds = [sum(one.probabilities[label] for one in plain) / 2 for label in ("blue", "red")]
    export = tiny.copy_export(project.root, tmp_path / "ruled", between if unknown else None, thresholds)
    write_demo(tmp_path / "out", export)
    with serve_folder(tmp_path / "out") as url:
        page.open(url)
        given = [predict(page, path.read_bytes()) for path in paths]
    for prediction, expected in zip(given, Predictor(export).predict_files(paths), strict=True):
        assert prediction["answer"] == expected.answer
        assert prediction["labels_in_set"] == list(expected.labels_in_set)
        assert prediction["unknown"] == expected.unknown
    assert [prediction["unknown"] for prediction in given].count(True) == (1 if unknown else 0)


@needs_chromium
def test_the_demo_is_the_same_page(page: chromium.Chromium, url: str, project: Project) -> None:
    page.open(url)
    page.js("document.querySelector('.example').click()")
    first = load_model_info(project.root / "stages/export", find_examples(project.root / "stages/export")).examples[0]
    assert predictions(page, 1) == [f"{first.predicted}, {100 * (first.confidence or 0):.1f} %"]
    page.js("document.getElementById('predictions').replaceChildren()")
    page.js(TRANSFER % (json.dumps(list(b"no picture")), DROP))
    assert predictions(page, 1) == ["transferred.png: not a picture that this browser can decode"]
    assert page.console == [], "no error, nothing requested from elsewhere"


def test_a_demo_that_cannot_be_made(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"ort\.wasm\.min\.mjs: no such file; fetch it, with npm: make demo-assets"):
        write_demo(tmp_path / "out", project.root / "stages/export")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").touch()
    with pytest.raises(UserError, match="full: exists and is not empty; name a new folder"):
        write_demo(tmp_path / "full", project.root / "stages/export")
    with pytest.raises(UserError, match=r"model\.onnx: no such file"):
        write_demo(tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()
