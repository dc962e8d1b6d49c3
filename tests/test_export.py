"""The exported model says what the examined one says, and what cannot be proven is not left lying around."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import tiny
from conftest import Project
from headstart import classify, coco, modelfile, pixels
from headstart.batches import outputs
from headstart.compute import Compute
from headstart.errors import UserError
from headstart.export import export
from headstart.predict import Model, Odds
from headstart.serve.about import about
from headstart.sitting import digest, read
from headstart.weights import trunk

CPU = Compute(torch.device("cpu"), bf16=False)


@pytest.fixture
def root(project: Project, tmp_path: Path) -> Path:
    """A copy of the project, with what an earlier export left."""
    shutil.copytree(project.root, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def translated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Translating to ONNX takes seconds; the same network gives the same file, and it lies there already."""
    monkeypatch.setattr("headstart.export._write_onnx", lambda *_: None)


def torch_logits(project: Project) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    tensors, card = modelfile.read(project.root / "stages/fine-tune/model.safetensors")
    test = tiny.manifest(project.root, "split", "test").images
    seen = pixels.load(test, project.root, card.input, "decode")
    found: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = outputs(
        classify.build(tensors, card), seen, card.input, CPU
    ).numpy()
    return found


def test_onnx_gives_the_torch_models_logits(project: Project) -> None:
    model = Model(project.root / "stages/export")
    test = tiny.manifest(project.root, "split", "test").images
    seen = np.stack([pixels.decode(project.root / image.file_name, model.input) for image in test])
    wanted = torch_logits(project)
    for batch in (1, 4, 6):  # the batch is free
        np.testing.assert_allclose(model.odds(seen[:batch]).logits, wanted[:batch], atol=1e-5)
    temperature = tiny.read_json(project.root / "stages/export/labels.json")["temperature"]
    calibrated = torch.from_numpy(wanted / temperature).softmax(1).numpy()
    np.testing.assert_allclose(model.odds(seen).probabilities, calibrated, atol=1e-5)
    assert model.odds(seen).probabilities.sum(1) == pytest.approx(np.ones(6))


def test_parity_is_written_down(project: Project) -> None:
    parity = tiny.read_json(project.root / "stages/export/parity.json")
    assert (parity["pictures"], parity["same_label"], parity["tolerance"]) == (6, 6, 1e-3)
    assert 0 <= parity["largest_logit_difference"] < 1e-4


def test_the_examined_figures_are_those_of_the_exported_model(project: Project) -> None:
    """predictions.json of the exam, and the exported file on the same pictures."""
    model = Model(project.root / "stages/export")
    for row in tiny.read_json(project.root / "stages/evaluate/predictions.json"):
        shown = model.odds(pixels.decode(project.root / row["file_name"], model.input)[None]).probabilities[0]
        told = [row["fine_tuned"]["probabilities"][label] for label in model.labels]
        assert list(map(float, shown)) == pytest.approx(told, abs=1e-5)


def test_what_it_says_of_the_test_pictures_is_left_for_comparing(project: Project) -> None:
    test, found = tiny.manifest(project.root, "split", "test"), read(project.root / "stages/export/answers.json")
    assert (found.exam, found.labels, found.boxes) == (digest(test), ("blue", "red"), {})
    sha256 = {image.file_name: image.sha256 for image in test.images}
    rows = tiny.read_json(project.root / "stages/evaluate/predictions.json")
    assert set(found.probabilities) == {sha256[row["file_name"]] for row in rows}
    for row in rows:
        wanted = list(row["fine_tuned"]["probabilities"].values())
        assert found.probabilities[sha256[row["file_name"]]] == pytest.approx(wanted, abs=1e-5)


def test_the_file_stands_alone_and_says_what_it_takes(project: Project) -> None:
    folder = project.root / "stages/export"
    assert sorted(path.name for path in folder.iterdir()) == [
        "answers.json",
        "labels.json",
        "model.onnx",
        "model_card.md",
        "parity.json",
        "speed.json",
    ], "no file of weights beside it, no half-written one"
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape[1:]) == ("pixels", "tensor(uint8)", [32, 32, 3])
    assert [given.name for given in session.get_outputs()] == ["logits", "probabilities"]
    labels = tiny.read_json(folder / "labels.json")
    assert labels["labels"] == ["blue", "red"]
    assert labels["input"]["resize"] == "squash"


def test_the_model_card_holds_the_figures(project: Project) -> None:
    card = (project.root / "stages/export/model_card.md").read_text(encoding="utf-8")
    accuracy = tiny.read_json(project.root / "stages/evaluate/metrics.json")["test"]["accuracy"]
    for said in ("blue, red", tiny.TRUNK, f"| {accuracy:.3f} (95 % interval", "folder:data (24)", "6 pictures)"):
        assert said in card, said


@pytest.mark.usefixtures("translated")
def test_the_model_card_counts_the_pictures_of_all_splits(root: Path) -> None:
    path = root / "stages/split/test.json"
    test = coco.read(path)
    other = test.images[0].model_copy(update={"source": "table:exam.csv", "license": "CC BY-NC 4.0"})
    coco.write(test.model_copy(update={"images": (other, *test.images[1:])}), path)
    export(tiny.make_params(), root)
    card = (root / "stages/export/model_card.md").read_text(encoding="utf-8")
    assert "They come from folder:data (23), table:exam.csv (1).\n" in card
    assert "Their licences: not stated (23), CC BY-NC 4.0 (1).\n" in card


@pytest.mark.usefixtures("translated")
def test_what_cannot_be_proven_fails_and_is_not_left(root: Path) -> None:
    (root / "stages/export/parity.json").unlink()
    with pytest.raises(UserError) as caught:
        export(tiny.make_params(export={"tolerance": 1e-12}), root)
    line = str(caught.value)
    assert line.startswith("params.yaml: export.tolerance: 1e-12: the ONNX model differs by ")
    assert "agrees on 6 of 6 labels" in line
    assert "\n" not in line
    assert not (root / "stages/export/model.onnx").exists(), "the one before neither"
    assert not (root / "stages/export/parity.json").exists()


@pytest.mark.usefixtures("translated")
def test_an_onnx_model_that_says_something_else_fails(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the exporter had translated an operator wrongly."""
    odds = Model.odds
    monkeypatch.setattr(
        Model, "odds", lambda self, seen: odds(self, seen)._replace(logits=odds(self, seen)[0][:, ::-1])
    )
    with pytest.raises(UserError, match="agrees on 0 of 6 labels"):
        export(tiny.make_params(export={"tolerance": 100}), root)
    assert not (root / "stages/export/model.onnx").exists()


@pytest.mark.usefixtures("translated")
def test_an_answer_that_is_no_number_fails(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odds = Model.odds

    def broken(self: Model, seen: pixels.Pixels) -> Odds:
        x, probabilities = odds(self, seen)
        # The label stays: nan counts as the largest.
        return Odds(np.where(x == x.max(1, keepdims=True), np.nan, x), probabilities)

    monkeypatch.setattr(Model, "odds", broken)
    with pytest.raises(UserError, match="differs by nan in a logit and agrees on 6 of 6"):
        export(tiny.make_params(), root)
    assert not (root / "stages/export/model.onnx").exists()


def test_no_model_to_export(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"fine-tune/model\.safetensors: no such file; run the stage that writes it"):
        export(tiny.make_params(), tmp_path)


def test_the_network_exported_is_the_one_plain_timm_runs(project: Project) -> None:
    tensors, card = modelfile.read(project.root / "stages/fine-tune/model.safetensors")
    plain = trunk(card.backbone).eval()
    plain.load_state_dict({k.removeprefix("trunk."): t for k, t in tensors.items() if k.startswith("trunk.")})
    test = tiny.manifest(project.root, "split", "test").images
    seen = pixels.load(test, project.root, card.input, "decode")
    mean, std = (torch.tensor(value).reshape(1, 3, 1, 1) for value in (card.input.mean, card.input.std))
    with torch.no_grad():
        features = plain((torch.from_numpy(seen.copy()).permute(0, 3, 1, 2) / 255 - mean) / std)
        head = classify.build(tensors, card).head
        np.testing.assert_allclose(head(features).numpy(), torch_logits(project), atol=1e-5)
    assert json.loads((project.root / "stages/export/labels.json").read_text())["labels"] == list(card.labels)


@pytest.mark.usefixtures("translated")
def test_int8_is_smaller_and_says_what_it_costs(root: Path) -> None:
    before = (root / "stages/export/model.onnx").stat().st_size
    export(tiny.make_params(export={"quantize": "int8", "max_drop": 0.5}), root)
    told = tiny.read_json(root / "stages/export/parity.json")["int8"]
    assert told["bytes_fp32"] == before
    assert told["bytes"] == (root / "stages/export/model.onnx").stat().st_size < before
    assert told["calibrated_on"] == 12
    quick = tiny.read_json(root / "stages/export/speed.json")
    assert min(quick["milliseconds"], quick["pictures_per_second"], quick["fp32"]["milliseconds"]) > 0
    assert (quick["bytes"], quick["fp32"]["bytes"]) == (told["bytes"], before)
    graph = onnx.load(root / "stages/export/model.onnx").graph
    weights = {i.name: i.data_type for i in graph.initializer if len(i.dims) == 4 and i.dims[2] > 1}
    assert weights
    assert set(weights.values()) == {onnx.TensorProto.INT8}
    model = Model(root / "stages/export")
    images = tiny.manifest(root, "split", "test").images
    seen = np.stack([pixels.decode(root / image.file_name, model.input) for image in images])
    right = [model.labels[n] == image.label for n, image in zip(model.odds(seen).logits.argmax(1), images, strict=True)]
    assert told["accuracy"] == pytest.approx(np.mean(right), abs=1e-6)
    assert model.odds(seen).probabilities.sum(1) == pytest.approx(np.ones(6))
    card = (root / "stages/export/model_card.md").read_text(encoding="utf-8")
    assert "| 8 bits | " in card
    assert f"test accuracy {told['accuracy']:.3f} instead of {told['accuracy_fp32']:.3f}" in card
    assert about(root / "stages/export", []).figures[0].note.startswith("of the fp32 model; int8 ")


@pytest.mark.usefixtures("translated")
def test_int8_that_costs_too_much_is_not_left(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copied(model: Path, out: Path, _: pixels.Pixels) -> None:
        shutil.copy(model, out)

    monkeypatch.setattr("headstart.export.quantize", copied)
    accuracies = iter((0.9, 0.88))  # of the model as it is, and as if 8 bits cost two points
    monkeypatch.setattr("headstart.export._measured", lambda *_: {"accuracy": next(accuracies)})
    with pytest.raises(UserError) as caught:
        export(tiny.make_params(export={"quantize": "int8"}), root)
    assert str(caught.value).startswith("params.yaml: export.max_drop: 0.01: int8 costs ")
    assert "\n" not in str(caught.value)
    assert not list((root / "stages/export").glob("*.onnx"))
