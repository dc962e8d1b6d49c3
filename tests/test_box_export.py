"""The exported detector finds what the examined one finds, and so do `predict`, the server, MLflow and the browser."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from mlflow import pyfunc
from mlflow.models import Model as Description
from PIL import Image
from starlette.testclient import TestClient
from typer.testing import CliRunner

import chromium
import tiny
from conftest import Project
from headstart import box_export, champion, pixels, registry
from headstart.cli import app
from headstart.errors import UserError
from headstart.export import export
from headstart.params import ExportParams
from headstart.predict import Boxes, Model, look
from headstart.serve.about import about, examples
from headstart.serve.demo import demo
from headstart.serve.run import application
from headstart.sitting import digest, read
from test_page import RUNTIME, answers, page, served, static  # noqa: F401 (page is a fixture)


def test_the_file_stands_alone_and_says_what_it_takes(detect_project: Project) -> None:
    folder = detect_project.root / "stages/export"
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape[1:]) == ("pixels", "tensor(uint8)", [96, 96, 3])
    assert [given.name for given in session.get_outputs()] == ["boxes", "scores", "labels"]
    assert tiny.read_json(folder / "labels.json")["labels"] == ["blue", "red"]
    card = (folder / "model_card.md").read_text(encoding="utf-8")
    assert "fcos on test_efficientnet" in card
    assert "Finds in a picture, with a box round each: blue, red." in card


def test_the_exported_model_finds_what_was_examined(detect_project: Project) -> None:
    """predictions.json of the exam, and the exported file on the same pictures; one by one and together."""
    root, model = detect_project.root, Model(detect_project.root / "stages/export")
    test = tiny.manifest(root, "split", "test")
    told = tiny.read_json(root / "stages/evaluate/predictions.json")
    assert told
    seen = np.stack([pixels.decode(root / image.file_name, model.input) for image in test.images])
    together = model.boxes(seen)
    for number, image in enumerate(test.images):
        alone = model.boxes(seen[number][None])
        np.testing.assert_allclose(alone.scores[0], together.scores[number], atol=1e-5)
        scores = [one["score"] for one in told if one["image_id"] == image.id]
        apart = np.abs(np.array(scores)[:, None] - alone.scores[0]).min(1)
        # Whether two boxes overlap too much to be two may hang on a last bit: one of a hundred may be there or not.
        assert (apart > 1e-4).sum() <= 1
        first = next(one for one in told if one["image_id"] == image.id)
        corners = pixels.from_input(alone.boxes[0], image.width, image.height, model.input)
        x, y, width, height = first["bbox"]
        assert corners[0].tolist() == pytest.approx([x, y, x + width, y + height], abs=0.05)


def test_parity_is_written_down(detect_project: Project) -> None:
    parity = tiny.read_json(detect_project.root / "stages/export/parity.json")
    assert parity["pictures"] == 4
    assert parity["same_box"] == parity["boxes"]
    assert parity["largest_difference_in_pixels"] < 0.01


def broken(root: Path, monkeypatch: pytest.MonkeyPatch, change: Any) -> str:
    boxes = Model.boxes
    monkeypatch.setattr("headstart.onnxfile.write", lambda *_, **__: None)  # the file of the fixture will do
    monkeypatch.setattr(Model, "boxes", lambda self, seen: change(boxes(self, seen)))
    metrics = root / "stages/evaluate/metrics.json"
    data = tiny.read_json(metrics)
    data["test"]["threshold"] = 0.06  # so that there are boxes to compare
    metrics.write_text(json.dumps(data))
    with pytest.raises(UserError) as caught:
        export(tiny.make_detect_params(), root)
    assert not (root / "stages/export/model.onnx").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: Boxes(found.boxes + 2, found.scores, found.labels),
        lambda found: Boxes(found.boxes, found.scores * 0.9, found.labels),
        lambda found: Boxes(found.boxes, found.scores, 1 - found.labels),
        lambda found: Boxes(found.boxes, found.scores * np.nan, found.labels),
    ],
    ids=["elsewhere", "less sure", "other label", "no number"],
)
def test_what_cannot_be_proven_fails_and_is_not_left(
    detect_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(detect_project.root, root)
    line = broken(root, monkeypatch, change)
    assert line.startswith("params.yaml: export.tolerance: 0.001: of ")
    assert "have no like in the other's answer within 1 pixel" in line


def test_a_box_at_the_edge_of_suppression_may_be_missing(detect_project: Project, tmp_path: Path) -> None:
    """Ten by ten pixels each, the second 2.5 further: an IoU of 0.6, which is the limit; 3.5 further: 0.48."""

    def boxes(second: float, *scores: float) -> Boxes:
        corners = np.array([[[0, 0, 10, 10], [second, 0, second + 10, 10]]], np.float32)
        return Boxes(corners, np.array([scores], np.float32), np.zeros((1, 2), np.int64))

    def parity(second: float) -> dict[str, Any]:
        return box_export.parity(folder, boxes(second, 0.9, 0), boxes(second, 0.9, 0.8), 0.5, 0.6, ExportParams())

    folder = tmp_path / "export"
    shutil.copytree(detect_project.root / "stages/export", folder)
    found = parity(2.5)
    assert (found["boxes"], found["same_box"], found["largest_difference_in_pixels"]) == (3, 2, 0)
    with pytest.raises(UserError, match="of 3 boxes that the torch and the ONNX model find, 1 have no like"):
        parity(3.5)


def test_int8_is_smaller_and_says_what_it_costs(detect_project: Project, tmp_path: Path) -> None:
    root, folder = tmp_path / "copy", tmp_path / "copy/stages/export"
    shutil.copytree(detect_project.root, root)
    before = (folder / "model.onnx").stat().st_size
    export(tiny.make_detect_params(export={"quantize": "int8", "max_drop": 1}), root)
    told, quick = (tiny.read_json(folder / f"{name}.json") for name in ("parity", "speed"))
    small = told["int8"]
    assert (small["bytes_fp32"], small["bytes"]) == (before, (folder / "model.onnx").stat().st_size)
    assert small["bytes"] < before
    examined = tiny.read_json(root / "stages/evaluate/metrics.json")["test"]["AP"]
    assert small["AP_fp32"] == pytest.approx(examined, abs=1e-3)
    assert told["same_box"] == told["boxes"], "of the model before"
    graph = onnx.load(folder / "model.onnx").graph
    kinds = {i.name: i.data_type for i in graph.initializer}
    dequantized = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in kinds}
    weights = [n.input[1] in dequantized for n in graph.node if n.op_type == "Conv"]
    assert weights.count(False) == 15, "three on each of five levels: labels, corners, how central"
    assert weights.count(True) > 15
    found = read(folder / "answers.json")
    test = tiny.manifest(root, "split", "test")
    assert champion.figure(test, found, "AP") == pytest.approx(small["AP"], abs=1e-6), "the file that is left"
    notes = {figure.name: figure.note for figure in about(folder, []).figures}
    assert notes["AP"].startswith("of the fp32 model; int8 ")
    assert notes["AP at IoU 0.5"] == "of the fp32 model"
    card = (folder / "model_card.md").read_text(encoding="utf-8")
    assert f"test AP {small['AP']:.3f} instead of {small['AP_fp32']:.3f}; {quick['milliseconds']} ms" in card


def test_int8_that_costs_too_much_is_not_left(
    detect_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(detect_project.root, root)
    monkeypatch.setattr("headstart.export.quantize", lambda model, out, _: shutil.copy(model, out))
    values = iter((0.5, 0.48))
    monkeypatch.setattr("headstart.champion.figure", lambda *_: next(values))
    with pytest.raises(
        UserError, match=r"export\.max_drop: 0\.01: int8 costs 0\.0200 of test AP \(0\.5000 to 0\.4800\)"
    ):
        export(tiny.make_detect_params(export={"quantize": "int8"}), root)
    assert not list((root / "stages/export").glob("*.onnx"))


def test_predict_says_boxes_in_pixels_of_the_picture(detect_project: Project, tmp_path: Path) -> None:
    root = detect_project.root
    folder = tmp_path / "export"
    shutil.copytree(root / "stages/export", folder)
    labels = tiny.read_json(folder / "labels.json") | {"threshold": 0.06}
    (folder / "labels.json").write_text(json.dumps(labels))
    picture, bad = root / "data/images/00.png", tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    done = CliRunner().invoke(app, ["predict", "--model", str(folder), "--json", str(picture), str(bad)])
    first, second = json.loads(done.output)
    assert done.exit_code == 1
    assert second["error"]
    assert second["boxes"] == []
    assert first["boxes"]
    model = Model(folder)
    raw = model.boxes(pixels.decode(picture, model.input)[None])
    x1, y1, x2, y2 = first["boxes"][0]["box"]
    assert [x1 * 96 / 120, y1 * 96 / 80, x2 * 96 / 120, y2 * 96 / 80] == pytest.approx(
        raw.boxes[0, 0].tolist(), abs=0.01
    )
    out = tmp_path / "out"
    said = CliRunner().invoke(app, ["predict", "--model", str(folder), "--draw", str(out), str(picture)])
    assert said.exit_code == 0
    assert f"{picture}: {first['boxes'][0]['label']} " in said.output
    with Image.open(out / "00.jpg") as drawn:
        assert drawn.size == (480, 320)


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")  # of MLflow, when it is imported
@pytest.mark.filterwarnings("ignore:Operation with range is deprecated")  # MLflow on pandas 3
def test_mlflow_says_the_same_boxes(detect_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [*sys.path])  # MLflow puts the model's own code first
    labels = tiny.read_json(detect_project.root / "stages/export/labels.json") | {"threshold": 0.05}
    shutil.copytree(detect_project.root / "stages/export", tmp_path / "export")
    (tmp_path / "export/labels.json").write_text(json.dumps(labels))
    registry.save(tmp_path, tmp_path / "export", Description())
    model = pyfunc.load_model(str(tmp_path / "model"))
    assert model.metadata.signature.outputs.input_names() == ["boxes"]
    path = detect_project.root / "data/images/00.png"
    (said,) = model.predict(pd.DataFrame({"image": [path.read_bytes()]}))
    (wanted,) = Model(tmp_path / "export").predict([path])
    assert wanted.boxes
    assert [(b["label"], b["score"], tuple(b["box"])) for b in said["boxes"]] == [
        (box.label, box.score, box.corners) for box in wanted.boxes
    ]


def test_what_it_says_of_the_test_pictures_is_left_for_comparing(detect_project: Project) -> None:
    root = detect_project.root
    test, found = tiny.manifest(root, "split", "test"), read(root / "stages/export/answers.json")
    assert (found.exam, list(found.labels), found.probabilities) == (digest(test), ["blue", "red"], {})
    told: dict[str, list[list[float]]] = {image.sha256: [] for image in test.images}
    for one in tiny.read_json(root / "stages/evaluate/predictions.json"):
        sha256 = next(image.sha256 for image in test.images if image.id == one["image_id"])
        told[sha256].append([one["category_id"] - 1, one["score"], *one["bbox"]])
    for sha256, boxes in told.items():
        np.testing.assert_allclose(found.boxes[sha256], boxes, atol=0.01)


def test_the_cards_of_both_tasks_tell_of_data_training_confusion_and_speed(
    project: Project, detect_project: Project
) -> None:
    for root, last in ((project.root, "red"), (detect_project.root, "background")):
        card = (root / "stages/export/model_card.md").read_text(encoding="utf-8")
        quick = tiny.read_json(root / "stages/export/speed.json")
        blocks = tiny.read_json(root / "stages/fine-tune/blocks.json")
        frozen = [block for block in blocks if block["state"] == "frozen"]
        split = tiny.read_json(root / "stages/split/metrics.json")
        counts = " | ".join(str(split[part]["label.blue"]) for part in ("train", "val", "test"))
        for said in (
            f"| speed | {quick['milliseconds']} ms a picture, {quick['pictures_per_second']} pictures a second",
            f"{len(frozen)} of its 6 blocks (conv_stem to {frozen[-1]['name']}, ",
            f"| blue | {counts} |",
            "Duplicates: 0 identical to another picture, 0 pairs nearly so",
            "| fine-tune | 2 | ",
            "\n    git checkout <its commit>\n    cp <its params.yaml> params.yaml\n    make repro\n",
        ):
            assert said in card, said
        with (root / "stages/evaluate/plots/confusion.csv").open() as file:
            pairs = file.read().split()[1:]
        row = [pairs.count(f"blue,{said}") for said in dict.fromkeys(["blue", "red", last])]
        assert f"| blue | {' | '.join(map(str, row))} |" in card


# --- served ---


@pytest.fixture(scope="module")
def finished(detect_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which some boxes are believed and some not, and the gallery has one of each kind."""
    home = tmp_path_factory.mktemp("finished")
    shutil.copytree(detect_project.root / "stages", home / "stages")
    folder = home / "stages/export"
    path = home / tiny.manifest(home, "split", "test").images[0].file_name
    (seen,) = Model(folder).say([look(path.read_bytes(), Model(folder).input)])
    scores = [box.score for box in seen.boxes or ()]
    assert len(scores) > 1
    labels = tiny.read_json(folder / "labels.json") | {"threshold": (scores[0] + scores[-1]) / 2}
    (folder / "labels.json").write_text(json.dumps(labels))
    names = [image.file_name for image in tiny.manifest(home, "split", "test").images[:3]]
    rows = [
        f"1.jpg,miss,{names[0]},blue,,",
        f"2.jpg,false alarm,{names[1]},,red,0.7",
        f"3.jpg,hit,{names[0]},red,red,0.8",
        f"4.jpg,hit,{names[2]},red,red,0.8",
    ]
    header = "thumbnail,kind,file_name,label,predicted,confidence"
    (home / "stages/evaluate/gallery/cases.csv").write_text("\n".join([header, *rows, ""]))
    actual = "actual,predicted\nred,red\nred,red\nblue,background\nbackground,red\n"
    (home / "stages/evaluate/plots/confusion.csv").write_text(actual)
    return home


def test_the_server_says_the_boxes_and_what_the_exam_knows(finished: Path) -> None:
    folder = finished / "stages/export"
    model = Model(folder)
    path = finished / tiny.manifest(finished, "split", "test").images[0].file_name
    with TestClient(application(folder)) as client:
        (answer,) = client.post("/predict", files=[("files", ("a.png", path.read_bytes()))]).json()["answers"]
        told = client.get("/model").json()
        assert client.get(f"/{told['examples'][0]['thumbnail']}").headers["content-type"] == "image/jpeg"
    (found,) = model.predict([path])
    assert model.threshold is not None
    sure = [box for box in answer["boxes"] if box["score"] >= model.threshold]
    assert [(box["label"], tuple(box["box"])) for box in sure] == [(b.label, b.corners) for b in found.boxes or ()]
    assert len(answer["boxes"]) > len(sure) > 0, "the unsure ones are told too"
    assert (answer["label"], answer["probabilities"], answer["width"], answer["height"]) == (None, None, 120, 80)
    assert (told["task"], told["threshold"]) == ("detect", model.threshold)
    metrics = tiny.read_json(finished / "stages/evaluate/metrics.json")["test"]
    assert {one["name"]: one["value"] for one in told["figures"]} == {
        "AP": metrics["AP"],
        "AP at IoU 0.5": metrics["AP50"],
    }
    assert [one["fault"] for one in told["examples"]] == ["misses a box of blue", "finds red where nothing is", ""]
    assert told["said"]["background"] == {"times": 1, "really": {"blue": 1}}


@pytest.mark.skipif(chromium.PROGRAM is None, reason=chromium.INSTALL)
def test_the_page_draws_them(page: chromium.Chromium, finished: Path) -> None:  # noqa: F811
    folder = finished / "stages/export"
    first = examples(folder)[0]
    (found,) = Model(folder).predict([first.path])
    with served(application(folder)) as address:
        page.open(address)
        assert page.js("document.querySelector('h1').textContent") == "Find blue, red"
        assert page.js("[...document.querySelectorAll('#confusions li')].map(e => e.textContent)") == [
            "1 × blue missed",
            "1 × red found where nothing is",
        ]
        page.js("document.querySelector('.example').click()")
        (heading,) = answers(page, 1)
        assert heading.startswith(f"{len(found.boxes or ())} of ")
        assert page.js("document.querySelector('.truth').textContent").startswith(
            "Known from the test: here it misses a box of blue"
        )
        assert page.js("document.querySelector('.example img').alt") == "Test picture, in which it misses a box of blue"
        assert page.said == []


@pytest.mark.skipif(chromium.PROGRAM is None, reason=chromium.INSTALL)
def test_the_browser_finds_the_same_boxes(
    page: chromium.Chromium,  # noqa: F811
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NMS in the graph included; the picture cropped too."""
    if not RUNTIME.is_dir():
        pytest.skip("no onnxruntime-web: make demo-assets")
    monkeypatch.chdir(RUNTIME.parents[1])
    folder = finished / "stages/export"
    path = examples(folder)[0].path
    for how in ("squash", "crop"):
        labels = tiny.read_json(folder / "labels.json")
        changed = tmp_path / how
        shutil.copytree(finished / "stages", changed / "stages")
        labels["input"]["resize"] = how
        (changed / "stages/export/labels.json").write_text(json.dumps(labels))
        demo(tmp_path / f"out-{how}", changed / "stages/export")
        assert about(changed / "stages/export", []).input["resize"] == how
        model = Model(changed / "stages/export")
        (wanted,) = model.predict([path])
        least = (model.threshold or 0) + 1e-4  # the very threshold may lie between two equal scores
        with static(tmp_path / f"out-{how}") as address:
            page.open(address)
            data = json.dumps(list(path.read_bytes()))
            found = page.js(f"import('./answer.js').then(m => m.answer(new Blob([Uint8Array.from({data})]), 'a'))")
        sure = [box for box in found["boxes"] if box["score"] >= least]
        assert wanted.boxes
        assert [box["label"] for box in sure] == [box.label for box in wanted.boxes if box.score >= least]
        for mine, theirs in zip(sure, wanted.boxes, strict=False):
            assert mine["score"] == pytest.approx(theirs.score, abs=1e-3)
            assert mine["box"] == pytest.approx(list(theirs.corners), abs=0.1)
