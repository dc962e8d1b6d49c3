"""A detector's batches; what is frozen in head training and fine-tuning stays the same to the bit."""

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import tiny
from conftest import Project
from headstart.base.cache_dir import list_entries
from headstart.engine.device import Compute
from headstart.features import embeddings
from headstart.models import detector
from headstart.models.backbone import create_backbone
from headstart.models.file import read_model_file, strip_prefix
from headstart.models.freeze import list_blocks
from headstart.training import detector_batches
from headstart.training.batches import TrainingBatches
from tiny import fine_tune, train_head

CPU = Compute(torch.device("cpu"))
HEAD_PICTURES = (("augment", "train"), ("split", "val"))  # stage and manifest


@pytest.fixture
def root(detect_project: Project, tmp_path: Path) -> Path:
    """A copy of the project, up to split."""
    for name in ("fetch", "weights", "split", "augment", "train-head"):
        shutil.copytree(detect_project.root / "stages" / name, tmp_path / "stages" / name)
    return tmp_path


def make_batches(project: Project, mosaic: float) -> TrainingBatches:
    tensors, spec = read_model_file(project.root / "stages/train-head/model.safetensors")
    params = tiny.make_detect_params(augment={"mosaic": mosaic})
    return detector_batches.make_augmented(detector.build(tensors, spec), params, spec, CPU, project.root)


def test_an_epoch_is_always_the_same_and_no_two_are(detect_project: Project) -> None:
    data, rows = make_batches(detect_project, 0.5), torch.tensor([0, 3, 5])
    (pictures, _), boxes = data.make_batch(rows, 1)
    again = data.make_batch(rows, 1)
    assert torch.equal(pictures, again[0][0])
    assert torch.equal(boxes, again[1])
    assert torch.equal(boxes, again[0][1])
    assert not torch.equal(pictures, data.make_batch(rows, 2)[0][0])
    alone = data.make_batch(torch.tensor([3]), 1)[0][0]
    torch.testing.assert_close(pictures[1:2], alone, rtol=0, atol=1e-5)  # whatever else is in the batch


def test_a_mosaic_has_the_boxes_of_four_pictures(detect_project: Project) -> None:
    """Over all training pictures there are more boxes than without mosaics, and smaller ones."""
    rows = torch.arange(8)
    counts, sides = [], []
    for mosaic in (0.0, 1.0):
        _, boxes = make_batches(detect_project, mosaic).make_batch(rows, 1)
        present = boxes[boxes[..., 0] >= 0]
        counts.append(len(present))
        sides.append((present[:, 3] - present[:, 1]).mean())
        assert (present[:, 1:] >= 0).all()
        assert (present[:, 1:] <= 96).all()
    assert counts[1] > 1.3 * counts[0]
    assert sides[1] < sides[0]


def test_head_training_leaves_the_backbone_as_pretrained(detect_project: Project) -> None:
    pretrained = load_file(detect_project.root / "stages/weights/pretrained.safetensors")
    tensors, _ = read_model_file(detect_project.root / "stages/train-head/model.safetensors")
    backbone = strip_prefix("trunk.", tensors)
    assert set(backbone) == set(pretrained)
    assert all(torch.equal(tensor, pretrained[name]) for name, tensor in backbone.items())


def test_frozen_is_frozen_to_the_bit_and_the_rest_has_changed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At freeze_depth 3, batch norm included; the last epoch is the best."""
    losses = itertools.count(100, -1)
    monkeypatch.setattr(
        detector, "compute_val_metrics", lambda *_: {"val_loss": float(next(losses)), "val_AP": 0.0, "val_AP50": 0.0}
    )
    fine_tune(tiny.make_detect_params(), root)
    before, after = (
        read_model_file(root / f"stages/{stage}/model.safetensors")[0] for stage in ("train-head", "fine-tune")
    )
    assert list(before) == list(after)
    for block in list_blocks(create_backbone(tiny.TRUNK)):
        owners = {f"trunk.{name.rpartition('.')[0]}" for name in block.parameters}
        own = [name for name in before if name.rpartition(".")[0] in owners]
        if block.number < 3:
            assert all(torch.equal(before[name], after[name]) for name in own), block.name
        else:
            changed = [name for name in own if before[name].ndim > 1 and not torch.equal(before[name], after[name])]
            assert changed, block.name
    above_backbone = [name for name in before if name.startswith(("pyramid.", "head.")) and before[name].ndim > 1]
    assert [name for name in above_backbone if torch.equal(before[name], after[name])] == []


def test_two_runs_give_the_same_bits(root: Path, detect_project: Project) -> None:
    for stage, run in (("train-head", train_head), ("fine-tune", fine_tune)):
        run(detect_project.params, root)
        files = [each / f"stages/{stage}/model.safetensors" for each in (root, detect_project.root)]
        assert files[0].read_bytes() == files[1].read_bytes(), stage


def test_the_frozen_backbone_runs_once_on_a_picture(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the backbone runs again")

    monkeypatch.setattr(detector.Detector, "forward", never)
    params = tiny.make_detect_params(train_head={"epochs": 2})
    train_head(params, root)
    pictures = {image.sha256 for stage, name in HEAD_PICTURES for image in tiny.manifest(root, stage, name).images}
    (entry,) = (entry for entry in list_entries(root) if entry.kind == "activations")
    assert entry.count == len(pictures)
    assert "maps [2, 3, 4] of a detector" in entry.description
    monkeypatch.setattr(embeddings, "_run_and_cache", never)
    first = (root / "stages/train-head/model.safetensors").read_bytes()
    train_head(params, root)
    assert (root / "stages/train-head/model.safetensors").read_bytes() == first


def test_feature_maps_beyond_cache_gb_are_computed_every_epoch_and_train_the_same(root: Path) -> None:
    """In fp32, where no more than rounding differs."""
    found = []
    for most in (0, 8):
        assert not [entry for entry in list_entries(root) if entry.kind == "activations"]
        train_head(
            tiny.make_detect_params(train={"precision": "fp32", "cache_gb": most}, train_head={"epochs": 2}), root
        )
        found.append(np.genfromtxt(root / "stages/train-head/history.csv", delimiter=",", skip_header=1))
    assert [entry for entry in list_entries(root) if entry.kind == "activations"]
    np.testing.assert_allclose(found[0], found[1], atol=2e-3)


def test_the_history_has_the_columns_that_evaluate_reads(detect_project: Project) -> None:
    for stage in ("train-head", "fine-tune"):
        header = (detect_project.root / f"stages/{stage}/history.csv").read_text().splitlines()[0]
        assert header == "epoch,lr,train_loss,val_loss,val_AP,val_AP50,val_fitness"


def test_the_evaluation_of_a_detector(detect_project: Project) -> None:
    metrics = tiny.read_json(detect_project.root / "stages/evaluate/metrics.json")
    boxes = len(tiny.manifest(detect_project.root, "split", "test").annotations)
    assert metrics["test"]["boxes"] == metrics["head_only"]["boxes"] == boxes
    page = (detect_project.root / "stages/evaluate/report.html").read_text(encoding="utf-8")
    assert "fcos on a feature pyramid of 64 channels" in page
    sheet = detect_project.root / "stages/augment/preview.jpg"
    assert sheet.stat().st_size > 5000


def test_stored_copies_carry_their_boxes(detect_project: Project) -> None:
    originals, both = (tiny.manifest(detect_project.root, stage, "train") for stage in ("split", "augment"))
    copies = [image for image in both.images if image.copy_of is not None]
    assert len(copies) == len(originals.images) == 8
    assert len({a.id for a in both.annotations}) == len(both.annotations) > len(originals.annotations)
    targets = detector.encode_targets(
        both, read_model_file(detect_project.root / "stages/train-head/model.safetensors")[1].input
    )
    for image, target in zip(both.images, targets, strict=True):
        if image.copy_of is None or not len(target):
            continue
        with Image.open(detect_project.root / image.file_name) as opened:
            picture = torch.from_numpy(np.asarray(opened.convert("RGB").resize((96, 96)), np.float32))
        _, x1, y1, x2, y2 = target[0].round().int().tolist()
        inside = picture[y1 + 3 : y2 - 3, x1 + 3 : x2 - 3].mean((0, 1))
        assert inside[1] < 80, "red or blue, not grey"
