"""The page in a real browser: every input, probabilities and boxes, the keyboard alone, layout and contrast."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import chromium
import fakes
import tiny
from conftest import Project
from headstart.export.predictor import Predictor
from headstart.serve.app import create_app
from headstart.serve.examples import ExampleFile, find_examples
from headstart.serve.model_info import load_model_info
from headstart.serve.schema import Example
from headstart.serve.server import create_model_app
from pages import DROP, PASTE, TRANSFER, predictions, serve_app
from pictures import picture

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason=chromium.INSTALL)


@pytest.fixture(scope="module")
def url(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a model that names one label for every picture."""
    export = tiny.copy_export(project.root, tmp_path_factory.mktemp("single"), None, None)
    with serve_app(create_model_app(export)) as url:
        yield url


@pytest.fixture(scope="module")
def detector_url() -> Iterator[str]:
    with serve_app(create_app(fakes.FakeDetector(), fakes.MODEL_INFO)) as url:
        yield url


def heading(model: Predictor, path: Path) -> str:
    """The page's heading for a picture."""
    (prediction,) = model.predict_files([path])
    return f"{prediction.label}, {100 * prediction.probabilities[prediction.label]:.1f} %"


def test_chosen_dropped_and_pasted(
    page: chromium.Chromium,
    url: str,
    project: Project,
    tmp_path: Path,
) -> None:
    model = Predictor(project.root / "stages/export")
    page.open(url)
    assert page.js("document.querySelector('h1').textContent") == "Classify: blue or red"
    paths = []
    for number, name in enumerate(("one.png", "two.png")):
        paths.append(tmp_path / name)
        tiny.texture(70 + number, number).save(paths[-1])
    page.choose("#files", paths)
    expected = [heading(model, path) for path in reversed(paths)]
    assert predictions(page, 2) == expected
    data = json.dumps(list(paths[0].read_bytes()))
    for count, event in ((3, DROP), (4, PASTE)):
        page.js(TRANSFER % (data, event))
        assert predictions(page, count)[0] == expected[1]
    assert page.js("document.querySelectorAll('.bars li').length") == 8, "two bars a prediction"
    assert page.js("document.querySelector('.time').textContent").endswith("ms in total")
    assert page.js("document.getElementById('status').textContent") == f"transferred.png: {expected[1]}"
    assert page.console == []


def test_a_picture_of_the_camera(page: chromium.Chromium, url: str) -> None:
    page.open(url)
    page.js("document.getElementById('camera').click()")
    page.until("document.getElementById('video').videoWidth > 0")
    page.js("document.getElementById('take').click()")
    assert predictions(page, 1)[0].endswith("%")
    assert not page.js("document.getElementById('viewfinder').open")
    assert page.js("document.getElementById('video').srcObject") is None, "the camera is off"


def test_a_bad_picture_is_an_error_line_and_the_next_one_is_predicted(
    page: chromium.Chromium,
    url: str,
    tmp_path: Path,
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    tiny.texture(1, 0).save(tmp_path / "good.png")
    page.open(url)
    page.choose("#files", [tmp_path / "bad.png", tmp_path / "good.png"])
    good, bad = predictions(page, 2)
    assert bad == "bad.png: not a picture (it begins with 'no picture')"
    assert good.endswith("%")


def test_a_test_picture_by_the_keyboard_alone(page: chromium.Chromium, url: str, project: Project) -> None:
    """Tab reaches the first test picture, Enter predicts it; label and precision stand beside the prediction."""
    page.open(url)
    for _ in range(10):
        page.press("Tab", 9)
        if page.js("document.activeElement.className") == "example":
            break
    info = load_model_info(project.root / "stages/export", find_examples(project.root / "stages/export"))
    first = info.examples[0]
    assert str(page.js("document.activeElement.firstChild.alt")).startswith(first.label or "")
    page.press("Enter", 13)
    assert predictions(page, 1) == [f"{first.predicted}, {100 * (first.confidence or 0):.1f} %"]
    truth = "Correct" if first.label == first.predicted else "Wrong"
    assert page.js("document.querySelector('.truth').textContent") == f"{truth}: the label is {first.label}."
    column = info.confusion[first.predicted or ""]
    correct = column.actual.get(first.predicted or "", 0)
    precision = page.js("document.querySelector('.precision').textContent")
    assert precision.startswith(f"Of {column.total} test pictures predicted as {first.predicted}, {correct} ")
    assert f"(precision {100 * correct / column.total:.0f} %)" in precision
    value = page.js("document.querySelector('#metrics dd').firstChild.textContent")
    assert value == f"{100 * info.metrics[0].value:.1f} %"


@pytest.mark.parametrize("unknown", [False, True])
def test_none_of_these_and_one_of_two(page: chromium.Chromium, project: Project, tmp_path: Path, unknown: bool) -> None:
    """The heading says it, a line says why, and the bars stay; a test picture's label is judged by the answer."""
    export = tiny.copy_export(project.root, tmp_path, 0.0 if unknown else None, [0.0, 0.0])
    first = load_model_info(export, find_examples(export)).examples[0]
    other = next(label for label in ("blue", "red") if label != first.predicted)
    with serve_app(create_model_app(export)) as url:
        page.open(url)
        page.js("document.querySelector('.example').click()")
        (heading,) = predictions(page, 1)
        why = page.js("document.querySelector('.why').textContent")
        truth = page.js("document.querySelector('.truth').textContent")
        precision = page.js("document.querySelector('.precision').textContent")
        assert page.js("document.querySelectorAll('.bars li').length") == 2
    if unknown:
        assert heading == f"none of these (nearest: {first.predicted}, {100 * (first.confidence or 0):.1f} %)"
        assert why == "This picture is unlike all training pictures; the bars show which label would be nearest."
        assert truth == f"Turned away: the label is {first.label}."
        assert precision == "", "nothing is predicted"
    else:
        assert heading == f"{first.predicted} or {other}"
        assert why == "The picture may be either of these: the probabilities do not decide."
        assert truth == f"Among them: the label is {first.label}."
        assert precision.startswith("Of ")


def test_boxes_and_the_threshold(page: chromium.Chromium, detector_url: str, tmp_path: Path) -> None:
    picture(size=(400, 200)).save(tmp_path / "a.png")
    page.open(detector_url)
    assert page.js("document.querySelector('h1').textContent") == "Detect cat, dog"
    page.choose("#files", [tmp_path / "a.png"])
    assert predictions(page, 1) == ["2 of 3 boxes"], "the third has a score below the model's threshold"
    box = """(() => {
      const frame = document.querySelector('.frame img').getBoundingClientRect();
      const box = document.querySelectorAll('.box')[1].getBoundingClientRect();
      return [(box.left - frame.left) / frame.width, (box.top - frame.top) / frame.height,
              (box.right - frame.left) / frame.width, (box.bottom - frame.top) / frame.height];
    })()"""
    assert page.js(box) == pytest.approx([0.75, 0.5, 1, 1], abs=0.01)
    slide = """(() => {
      const slider = document.getElementById('min-score');
      slider.value = %s;
      slider.dispatchEvent(new Event('input'));
    })()"""
    for min_score, count in ((0, 3), (0.7, 1), (1, 0)):
        page.js(slide % min_score)
        assert predictions(page, 1) == [f"{count} of 3 boxes"]
        assert page.js("document.querySelectorAll('.bars li:not([hidden])').length") == count


def test_the_credit_of_a_picture_and_the_note_of_a_metric(page: chromium.Chromium, tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    file = ExampleFile(0, tmp_path / "a.png", None, None, None, credit="Ada, CC0")
    example = Example(picture=file.picture, thumbnail=file.thumbnail, credit=file.credit)
    metric = fakes.MODEL_INFO.metrics[0].model_copy(update={"note": "of the fp32 model"})
    info = fakes.MODEL_INFO.model_copy(update={"examples": [example], "metrics": [metric]})
    with serve_app(create_app(fakes.FakeDetector(), info, [file])) as url:
        page.open(url)
        assert page.js("document.querySelector('#metrics .note').textContent") == "of the fp32 model"
        assert page.js("document.querySelector('.example').title") == "Test picture (Ada, CC0)"
        page.js("document.querySelector('.example').click()")
        predictions(page, 1)
        assert page.js("document.querySelector('figcaption .credit').textContent") == "Ada, CC0"


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_overflows_and_text_has_contrast(page: chromium.Chromium, url: str, width: int, dark: bool) -> None:
    page.open(url, width=width, dark=dark)
    page.js("document.querySelector('.example').click()")
    predictions(page, 1)
    assert page.js("document.documentElement.scrollWidth") <= width
    contrast = """(() => {
      const luminance = (css) => {
        const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
        const [r, g, b] = css.match(/[\\d.]+/g).map((v) => linear(v / 255));
        return .2126 * r + .7152 * g + .0722 * b;
      };
      const background = (e) => {
        const own = getComputedStyle(e).backgroundColor;
        return own.endsWith(', 0)') ? background(e.parentElement) : own;
      };
      const texts = [...document.querySelectorAll('h1,h2,h3,p,li,dt,dd,small,button,summary')];
      return Math.min(...texts.filter((e) => e.textContent).map((e) => {
        const colors = [luminance(getComputedStyle(e).color), luminance(background(e))];
        const [a, b] = colors.sort((x, y) => y - x);
        return (a + .05) / (b + .05);
      }));
    })()"""
    assert page.js(contrast) >= 4.5, "WCAG 2.2, 1.4.3"
    unnamed = """[...document.querySelectorAll('button, input:not([hidden]), img')].filter((e) =>
      !(e.textContent.trim() || e.alt || e.labels?.length || e.querySelector?.('img')?.alt)).length"""
    assert page.js(unnamed) == 0
