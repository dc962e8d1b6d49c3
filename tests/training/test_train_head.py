"""Head training of a classifier: what is written, what stays the same, and the same bits in another folder."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

import tiny
from conftest import Project
from headstart.base.cache_dir import list_entries
from headstart.base.errors import UserError
from headstart.base.manifest import read_manifest, write_manifest
from headstart.engine.device import Compute
from headstart.engine.inference import run_inference
from headstart.engine.pixels import load_pixels
from headstart.models import classifier
from headstart.models.file import read_model_file
from headstart.training import checkpoint
from tiny import train_head
from training.fine_tuned import read_history


def test_the_backbone_is_as_pretrained_and_the_spec_describes_the_model(project: Project) -> None:
    pretrained = load_file(project.root / "stages/weights/pretrained.safetensors")
    tensors, spec = read_model_file(project.root / "stages/train-head/model.safetensors")
    backbone = {name.removeprefix("trunk."): t for name, t in tensors.items() if name.startswith("trunk.")}
    assert set(backbone) == set(pretrained)
    assert all(torch.equal(tensor, pretrained[name]) for name, tensor in backbone.items())
    assert (spec.task, spec.backbone, spec.features) == ("classify", tiny.TRUNK, 256)
    assert spec.labels == ("blue", "red")
    assert spec.head == project.params.model.head
    facts = tiny.read_json(project.root / "stages/weights/weights.json")
    assert (spec.input.size, spec.input.resize, list(spec.input.mean)) == (32, "squash", facts["input"]["mean"])


def test_the_best_epoch_is_in_the_metrics(project: Project) -> None:
    metrics = tiny.read_json(project.root / "stages/train-head/metrics.json")
    lines = (project.root / "stages/train-head/history.csv").read_text().splitlines()
    assert lines[0] == "epoch,lr,train_loss,val_loss,val_accuracy"
    assert metrics["epochs"] == len(lines) - 1 == 4
    assert float(lines[metrics["best_epoch"]].split(",")[3]) == pytest.approx(metrics["val_loss"], rel=1e-5)


def test_with_class_weights_the_epoch_of_the_lowest_weighted_loss_is_kept(tmp_path: Path) -> None:
    """In both trainings val_loss is weighted as the training loss is: by the labels' training pictures."""
    tiny.make_pictures(tmp_path)
    for number in range(6):
        (tmp_path / f"data/blue/{number:02d}.png").unlink()
    balanced = {"class_weights": "balanced"}
    params = tiny.make_params(train={"precision": "fp32"}, train_head=balanced, fine_tune=balanced)
    tiny.run(tmp_path, params, "fetch", "weights", "split", "augment", "train-head", "fine-tune")
    val = tiny.manifest(tmp_path, "split", "val").images
    for stage, train in (("train-head", "augment"), ("fine-tune", "split")):
        tensors, spec = read_model_file(tmp_path / f"stages/{stage}/model.safetensors")
        pixels = load_pixels(val, tmp_path, spec.input, "decode")
        network, compute = classifier.build(tensors, spec), Compute(torch.device("cpu"))
        logits = run_inference(network, pixels, spec.input, compute)
        targets = classifier.encode_targets(val, spec.labels)
        counts = torch.bincount(classifier.encode_targets(tiny.manifest(tmp_path, train, "train").images, spec.labels))
        assert counts[0] != counts[1]
        losses = F.cross_entropy(logits, targets, reduction="none") / counts[targets]
        metrics = tiny.read_json(tmp_path / f"stages/{stage}/metrics.json")
        assert metrics["val_loss"] == pytest.approx((losses.sum() / (1 / counts[targets]).sum()).item(), rel=1e-3)
        history = read_history(tmp_path / f"stages/{stage}/history.csv")
        assert min(row["val_loss"] for row in history) == pytest.approx(metrics["val_loss"], rel=1e-5)


def test_every_picture_was_embedded_once(project: Project) -> None:
    """Originals, stored copies and val, 12 + 12 + 6, each under one name; evaluate runs the whole network on test.

    The fixed backbone by which split finds near-duplicates has rows of its own.
    """
    names: list[str] = []
    for entry in list_entries(project.root):
        if entry.kind == "embeddings" and entry.description.startswith("test_efficientnet "):
            for file in entry.folder.rglob("*.safetensors"):
                names += bytes(load_file(file)["names"].tolist()).decode().split()
    manifests = (tiny.manifest(project.root, "augment", "train"), tiny.manifest(project.root, "split", "val"))
    assert sorted(names) == sorted(image.sha256 for manifest in manifests for image in manifest.images)
    assert len(names) == 30


def test_another_learning_rate_runs_no_backbone(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(project.root, root)
    before = (root / "stages/train-head/model.safetensors").read_bytes()

    def forbidden(*_: object) -> None:
        pytest.fail("the backbone was built")

    monkeypatch.setattr("headstart.models.pretrained.create_backbone", forbidden)
    train_head(tiny.make_params(train_head={"lr": 0.02}), root)
    assert (root / "stages/train-head/model.safetensors").read_bytes() != before
    train_head(project.params, root)
    assert (root / "stages/train-head/model.safetensors").read_bytes() == before


def test_another_learning_rate_or_a_corrected_label_does_not_resume_from_an_old_checkpoint(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SAVE_INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "MAX_WRITE_SHARE", math.inf)
    for name in ("weights", "split", "augment", "fetch"):
        shutil.copytree(project.root / "stages" / name, tmp_path / "stages" / name)
    train_head(project.params, tmp_path)
    slow = tiny.make_params(train_head={"lr": 0.002})
    train_head(slow, tmp_path)
    other_rate = (tmp_path / "stages/train-head/model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / ".cache/checkpoints")
    train_head(slow, tmp_path)
    assert (tmp_path / "stages/train-head/model.safetensors").read_bytes() == other_rate
    train_head(project.params, tmp_path)
    path = tmp_path / "stages/augment/train.json"
    train = read_manifest(path)
    first, *others = train.images
    other = next(image.label for image in others if image.label != first.label)
    write_manifest(train.model_copy(update={"images": (first.model_copy(update={"label": other}), *others)}), path)
    found = []
    for _ in range(2):
        train_head(project.params, tmp_path)
        found.append((tmp_path / "stages/train-head/model.safetensors").read_bytes())
        shutil.rmtree(tmp_path / ".cache/checkpoints")
    assert found[0] == found[1]


def test_the_same_bits_in_another_folder(project: Project, tmp_path: Path) -> None:
    """From the pictures on: both models, metrics, predictions and report."""
    tiny.make_pictures(tmp_path)
    tiny.run(tmp_path, project.params, *(name for name in tiny.STAGES if name != "export"))
    for name in (
        "split/train.json",
        "augment/train.json",
        "weights/pretrained.safetensors",
        "train-head/model.safetensors",
        "train-head/history.csv",
        "fine-tune/model.safetensors",
        "fine-tune/history.csv",
        "fine-tune/metrics.json",
        "evaluate/metrics.json",
        "evaluate/predictions.json",
        "evaluate/report.html",
    ):
        one, other = (root / "stages" / name for root in (project.root, tmp_path))
        assert one.read_bytes() == other.read_bytes(), name


def test_a_size_that_the_backbone_does_not_take(tmp_path: Path) -> None:
    tiny.make_pictures(tmp_path, 3)
    params = tiny.make_params(model={"backbone": "test_coatnet"})
    with pytest.raises(UserError) as caught:
        tiny.run(tmp_path, params, "fetch", "weights", "split", "augment", "train-head")
    line = str(caught.value)
    assert line.startswith("params.yaml: model.image_size: 32: test_coatnet does not take pictures of that size (")
    assert line.endswith("give its own, 160, or another backbone")
    assert "\n" not in line


def test_stages_before_it_have_to_be_run(project: Project, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"stages/augment/train\.json: no such file; run the stage that writes it"):
        train_head(project.params, tmp_path)
    for name in ("augment", "split"):
        shutil.copytree(project.root / "stages" / name, tmp_path / "stages" / name)
    with pytest.raises(UserError, match=r"stages/weights/weights\.json: no such file; .* dvc repro weights"):
        train_head(project.params, tmp_path)
