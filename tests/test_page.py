"""The page in a real browser, over the server and as a static demo: every way in, both kinds of answer, keys alone."""

import functools
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image

import chromium
import fakes
import tiny
from conftest import Project
from headstart.errors import UserError
from headstart.pixels import FILTERS, Input, fit
from headstart.predict import Model
from headstart.serve.about import Sample, about, examples
from headstart.serve.app import create_app
from headstart.serve.demo import ASSETS, demo
from headstart.serve.run import application
from headstart.serve.schema import Example
from pictures import encoded, picture

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason=chromium.INSTALL)
RUNTIME = Path(__file__).parent.parent / ASSETS
BROWSER = Path(__file__).parent.parent / "src/headstart/serve/browser"


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The app in a thread, as `headstart serve` runs it."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def static(folder: Path) -> Iterator[str]:
    """A folder as any web host serves it."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Chromium]:
    with chromium.Chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture(scope="module")
def address(project: Project) -> Iterator[str]:
    with served(application(project.root / "stages/export")) as address:
        yield address


@pytest.fixture(scope="module")
def boxes() -> Iterator[str]:
    with served(create_app(fakes.Finder(), fakes.ABOUT)) as address:
        yield address


def answers(page: chromium.Chromium, count: int) -> Any:
    """The headings of so many answers, newest first."""
    page.until(f"document.querySelectorAll('#answers > *').length >= {count}")
    return page.js(
        "[...document.querySelectorAll('#answers > *')].map(a => a.querySelector('h3')?.textContent ?? a.textContent)"
    )


def heading(model: Model, path: Path) -> str:
    """What the page should say of a picture."""
    (said,) = model.predict([path])
    return f"{said.label}, {100 * said.probabilities[said.label]:.1f} %"


# A file as a person's hand brings it: in the page's own DataTransfer.
HAND = """(async () => {
  const data = new DataTransfer();
  const bytes = Uint8Array.from(%s);
  data.items.add(new File([bytes], "by hand.png", {type: "image/png"}));
  %s
})()"""
DROP = "document.getElementById('drop').dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true}))"
PASTE = "document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data}))"


def test_chosen_dropped_and_pasted(page: chromium.Chromium, address: str, project: Project, tmp_path: Path) -> None:
    model = Model(project.root / "stages/export")
    page.open(address)
    assert page.js("document.querySelector('h1').textContent") == "Blue or red?"
    paths = []
    for number, name in enumerate(("one.png", "two.png")):
        paths.append(tmp_path / name)
        tiny.texture(70 + number, number).save(paths[-1])
    page.choose("#files", paths)
    wanted = [heading(model, path) for path in reversed(paths)]
    assert answers(page, 2) == wanted
    data = json.dumps(list(paths[0].read_bytes()))
    for count, how in ((3, DROP), (4, PASTE)):
        page.js(HAND % (data, how))
        assert answers(page, count)[0] == wanted[1]
    assert page.js("document.querySelectorAll('.bars li').length") == 8, "two bars an answer"
    assert page.js("document.querySelector('.time').textContent").endswith("ms in all")
    assert page.js("document.getElementById('status').textContent") == f"by hand.png: {wanted[1]}"
    assert page.said == []


def test_a_picture_of_the_camera(page: chromium.Chromium, address: str) -> None:
    page.open(address)
    page.js("document.getElementById('camera').click()")
    page.until("document.getElementById('video').videoWidth > 0")
    page.js("document.getElementById('take').click()")
    assert answers(page, 1)[0].endswith("%")
    assert not page.js("document.getElementById('viewfinder').open")
    assert page.js("document.getElementById('video').srcObject") is None, "the camera is let go"


def test_a_bad_picture_is_a_sentence_and_the_next_one_is_answered(
    page: chromium.Chromium, address: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    tiny.texture(1, 0).save(tmp_path / "good.png")
    page.open(address)
    page.choose("#files", [tmp_path / "bad.png", tmp_path / "good.png"])
    good, bad = answers(page, 2)
    assert bad == "bad.png: not a picture (it begins with 'no picture')"
    assert good.endswith("%")


def test_a_test_picture_by_keys_alone(page: chromium.Chromium, address: str, project: Project) -> None:
    """Tab reaches the first test picture, Enter asks, and what the exam knows stands beside the answer."""
    page.open(address)
    for _ in range(10):
        page.press("Tab", 9)
        if page.js("document.activeElement.className") == "example":
            break
    wanted = about(project.root / "stages/export", examples(project.root / "stages/export"))
    first = wanted.examples[0]
    assert str(page.js("document.activeElement.firstChild.alt")).startswith(first.label or "")
    page.press("Enter", 13)
    assert answers(page, 1) == [f"{first.predicted}, {100 * (first.confidence or 0):.1f} %"]
    truth = "Right" if first.label == first.predicted else "Wrong"
    assert page.js("document.querySelector('.truth').textContent") == f"{truth}: it is {first.label}."
    said = wanted.said[first.predicted or ""]
    known = page.js("document.querySelector('.known').textContent")
    assert known.startswith(
        f"Of {said.times} test pictures with this answer, {said.really.get(first.predicted or '', 0)}"
    )
    assert (
        page.js("document.querySelector('#figures dd').firstChild.textContent")
        == f"{100 * wanted.figures[0].value:.1f} %"
    )


def test_boxes_and_the_threshold(page: chromium.Chromium, boxes: str, tmp_path: Path) -> None:
    picture(size=(400, 200)).save(tmp_path / "a.png")
    page.open(boxes)
    assert page.js("document.querySelector('h1').textContent") == "Find cat, dog"
    page.choose("#files", [tmp_path / "a.png"])
    assert answers(page, 1) == ["2 of 3 boxes"], "the third scores less than the model's threshold"
    share = """(() => {
      const whole = document.querySelector('.frame img').getBoundingClientRect();
      const box = document.querySelectorAll('.box')[1].getBoundingClientRect();
      return [(box.left - whole.left) / whole.width, (box.top - whole.top) / whole.height,
              (box.right - whole.left) / whole.width, (box.bottom - whole.top) / whole.height];
    })()"""
    assert page.js(share) == pytest.approx([0.75, 0.5, 1, 1], abs=0.01)
    slide = "(() => {const s = document.getElementById('least'); s.value = %s; s.dispatchEvent(new Event('input'))})()"
    for least, count in ((0, 3), (0.7, 1), (1, 0)):
        page.js(slide % least)
        assert answers(page, 1) == [f"{count} of 3 boxes"]
        assert page.js("document.querySelectorAll('.bars li:not([hidden])').length") == count


def test_whose_a_picture_is_and_of_which_model_a_figure(page: chromium.Chromium, tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    sample = Sample(0, tmp_path / "a.png", None, None, None, credit="Ada, CC0")
    example = Example(picture=sample.picture, thumbnail=sample.thumbnail, credit=sample.credit)
    figure = fakes.ABOUT.figures[0].model_copy(update={"note": "of the fp32 model"})
    told = fakes.ABOUT.model_copy(update={"examples": [example], "figures": [figure]})
    with served(create_app(fakes.Finder(), told, [sample])) as address:
        page.open(address)
        assert page.js("document.querySelector('#figures .note').textContent") == "of the fp32 model"
        assert page.js("document.querySelector('.example').title") == "Test picture (Ada, CC0)"
        page.js("document.querySelector('.example').click()")
        answers(page, 1)
        assert page.js("document.querySelector('figcaption .credit').textContent") == "Ada, CC0"


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_sticks_out_and_words_can_be_read(
    page: chromium.Chromium, address: str, width: int, dark: bool
) -> None:
    page.open(address, width=width, dark=dark)
    page.js("document.querySelector('.example').click()")
    answers(page, 1)
    assert page.js("document.documentElement.scrollWidth") <= width
    contrast = """(() => {
      const light = (css) => {
        const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
        const [r, g, b] = css.match(/[\\d.]+/g).map((v) => linear(v / 255));
        return .2126 * r + .7152 * g + .0722 * b;
      };
      const ground = (e) => {
        const own = getComputedStyle(e).backgroundColor;
        return own.endsWith(', 0)') ? ground(e.parentElement) : own;
      };
      const words = [...document.querySelectorAll('h1,h2,h3,p,li,dt,dd,small,button,summary')];
      return Math.min(...words.filter((e) => e.textContent).map((e) => {
        const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
        return (a + .05) / (b + .05);
      }));
    })()"""
    assert page.js(contrast) >= 4.5, "WCAG 2.2, 1.4.3"
    unnamed = """[...document.querySelectorAll('button, input:not([hidden]), img')].filter((e) =>
      !(e.textContent.trim() || e.alt || e.labels?.length || e.querySelector?.('img')?.alt)).length"""
    assert page.js(unnamed) == 0


# ---- what the browser makes of a picture ---------------------------------------------------------------------------

SIZES = [(48, 40), (32, 32), (300, 300), (33, 500), (640, 90)]


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("how", ["squash", "crop"])
def test_the_browser_resizes_as_pillow_does(page: chromium.Chromium, interpolation: str, how: str) -> None:
    """The same pixels to the last bit, larger and smaller. For tall pictures Pillow (13) takes the columns first, and
    rounding and clipping between the passes are others: at most 6 of 255 on noise, the hardest there is."""
    wanted = Input.model_validate(
        {"size": 32, "resize": how, "interpolation": interpolation, "crop": 0.875, "mean": [0.5] * 3, "std": [0.5] * 3}
    )
    with static(BROWSER) as address:
        page.call("Page.navigate", url=f"{address}resize.js")
        page.until("location.pathname === '/resize.js' && document.readyState === 'complete'")
        for size in SIZES:
            rng = np.random.default_rng(size[0])
            noise = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))
            given = np.asarray(noise.convert("RGBA")).ravel().tolist()
            found = page.js(
                f"import('/resize.js').then(m => [...m.fit(Uint8Array.from({json.dumps(given)}), {size[0]}, {size[1]}, "
                f"{wanted.model_dump_json()})])"
            )
            differences = np.abs(np.array(found) - fit(noise, wanted).ravel().astype(int))
            assert differences.max() <= (0 if size[0] >= size[1] else 6), size
            assert differences.mean() < 0.6, size


@pytest.fixture(scope="module")
def shown(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not RUNTIME.is_dir():
        pytest.skip("no onnxruntime-web: make demo-assets")
    out = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(RUNTIME.parents[1])
        demo(out, project.root / "stages/export")
    with static(out) as address:
        yield address


def test_the_demo_answers_as_the_server_does(
    page: chromium.Chromium, shown: str, project: Project, tmp_path: Path
) -> None:
    """PNG to 0.001. JPEG to 0.02: Pillow decodes a large one at half its size, and the browser has its own decoder."""
    model = Model(project.root / "stages/export")
    page.open(shown)
    assert "stay here" in page.js("document.getElementById('where').textContent")
    upright = tiny.texture(5, 1, (200, 150))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    clear = upright.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    cases = {
        "plain.png": (encoded(upright), 0.001),
        "grey.png": (encoded(upright.convert("L")), 0.001),
        "clear.png": (encoded(clear), 0.005),
        "plain.jpg": (encoded(upright, "JPEG"), 0.02),
        "turned.jpg": (encoded(turned, "JPEG", orientation=6), 0.02),
    }
    for name, (data, tolerance) in cases.items():
        (tmp_path / name).write_bytes(data)
        (wanted,) = model.predict([tmp_path / name])
        found = page.js(
            f"import('./answer.js').then(m => m.answer(new Blob([Uint8Array.from({json.dumps(list(data))})]), 'a'))"
        )
        assert (found["width"], found["height"]) == (200, 150), name
        assert found["probabilities"] == pytest.approx(wanted.probabilities, abs=tolerance), name
        assert found["label"] == wanted.label, name


def test_the_demo_is_the_same_page(page: chromium.Chromium, shown: str, project: Project) -> None:
    page.open(shown)
    page.js("document.querySelector('.example').click()")
    first = about(project.root / "stages/export", examples(project.root / "stages/export")).examples[0]
    assert answers(page, 1) == [f"{first.predicted}, {100 * (first.confidence or 0):.1f} %"]
    page.js("document.getElementById('answers').replaceChildren()")
    page.js(HAND % (json.dumps(list(b"no picture")), DROP))
    assert answers(page, 1) == ["by hand.png: not a picture that this browser can read"]
    assert page.said == [], "nothing was asked of anybody else"


def test_a_demo_that_cannot_be_made(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"ort\.wasm\.min\.mjs: no such file; fetch it, with npm: make demo-assets"):
        demo(tmp_path / "out", project.root / "stages/export")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").touch()
    with pytest.raises(UserError, match="full: holds something already; name a new folder"):
        demo(tmp_path / "full", project.root / "stages/export")
    with pytest.raises(UserError, match=r"model\.onnx: no such file"):
        demo(tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()
