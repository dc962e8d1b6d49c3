"""What a detector is shown, and what its two fits leave as it was."""

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
from headstart import box_lessons, detect, embed, freeze, kept, modelfile
from headstart.compute import Compute
from headstart.fine_tune import fine_tune
from headstart.lessons import Lessons
from headstart.train_head import train_head
from headstart.weights import trunk

CPU = Compute(torch.device("cpu"), bf16=False)
LESSONS = (("augment", "train"), ("split", "val"))  # where the head's pictures are


@pytest.fixture
def root(detect_project: Project, tmp_path: Path) -> Path:
    """A copy of the project, up to split."""
    for name in ("fetch", "weights", "split", "augment", "train-head"):
        shutil.copytree(detect_project.root / "stages" / name, tmp_path / "stages" / name)
    return tmp_path


def lessons(project: Project, mosaic: float) -> Lessons:
    tensors, card = modelfile.read(project.root / "stages/train-head/model.safetensors")
    params = tiny.make_detect_params(augment={"mosaic": mosaic})
    return box_lessons.fresh(detect.build(tensors, card), params, card, CPU, project.root)


def test_an_epoch_is_always_the_same_and_no_two_are(detect_project: Project) -> None:
    shown, rows = lessons(detect_project, 0.5), torch.tensor([0, 3, 5])
    (pictures, _), boxes = shown.batch(rows, 1)
    again = shown.batch(rows, 1)
    assert torch.equal(pictures, again[0][0])
    assert torch.equal(boxes, again[1])
    assert torch.equal(boxes, again[0][1])
    assert not torch.equal(pictures, shown.batch(rows, 2)[0][0])
    alone = shown.batch(torch.tensor([3]), 1)[0][0]
    torch.testing.assert_close(pictures[1:2], alone, rtol=0, atol=1e-5)  # whatever its company


def test_a_mosaic_shows_the_boxes_of_four_pictures(detect_project: Project) -> None:
    """In sum over the training pictures more boxes than there are, and smaller ones."""
    rows = torch.arange(8)
    counts, sides = [], []
    for mosaic in (0.0, 1.0):
        _, boxes = lessons(detect_project, mosaic).batch(rows, 1)
        there = boxes[boxes[..., 0] >= 0]
        counts.append(len(there))
        sides.append((there[:, 3] - there[:, 1]).mean())
        assert (there[:, 1:] >= 0).all()
        assert (there[:, 1:] <= 96).all()
    assert counts[1] > 1.3 * counts[0]
    assert sides[1] < sides[0]


def test_the_head_leaves_the_trunk_as_pretrained(detect_project: Project) -> None:
    pretrained = load_file(detect_project.root / "stages/weights/pretrained.safetensors")
    tensors, _ = modelfile.read(detect_project.root / "stages/train-head/model.safetensors")
    under = modelfile.under("trunk.", tensors)
    assert set(under) == set(pretrained)
    assert all(torch.equal(tensor, pretrained[name]) for name, tensor in under.items())


def test_frozen_is_frozen_to_the_bit_and_the_rest_moved(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At freeze_depth 3, batch norm included; what was trained is what is kept."""
    losses = itertools.count(100, -1)
    monkeypatch.setattr(detect, "score", lambda *_: {"val_loss": float(next(losses)), "val_AP": 0.0, "val_AP50": 0.0})
    fine_tune(tiny.make_detect_params(), root)
    before, after = (
        modelfile.read(root / f"stages/{stage}/model.safetensors")[0] for stage in ("train-head", "fine-tune")
    )
    assert list(before) == list(after)
    for block in freeze.blocks(trunk(tiny.TRUNK)):
        owners = {f"trunk.{name.rpartition('.')[0]}" for name in block.parameters}
        own = [name for name in before if name.rpartition(".")[0] in owners]
        if block.number < 3:
            assert all(torch.equal(before[name], after[name]) for name in own), block.name
        else:
            moved = [name for name in own if before[name].ndim > 1 and not torch.equal(before[name], after[name])]
            assert moved, block.name
    above = [name for name in before if name.startswith(("pyramid.", "head.")) and before[name].ndim > 1]
    assert [name for name in above if torch.equal(before[name], after[name])] == []


def test_two_runs_give_the_same_bits(root: Path, detect_project: Project) -> None:
    for stage, run in (("train-head", train_head), ("fine-tune", fine_tune)):
        run(detect_project.params, root)
        files = [each / f"stages/{stage}/model.safetensors" for each in (root, detect_project.root)]
        assert files[0].read_bytes() == files[1].read_bytes(), stage


def test_the_frozen_trunk_runs_once_on_a_picture(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the trunk runs again")

    monkeypatch.setattr(detect.Detector, "forward", never)
    params = tiny.make_detect_params(train_head={"epochs": 2})
    train_head(params, root)
    shown = {image.sha256 for stage, name in LESSONS for image in tiny.manifest(root, stage, name).images}
    (entry,) = (entry for entry in kept.entries(root) if entry.kind == "activations")
    assert entry.count == len(shown)
    assert "maps [2, 3, 4] of a detector" in entry.words
    monkeypatch.setattr(embed, "_run", never)
    first = (root / "stages/train-head/model.safetensors").read_bytes()
    train_head(params, root)
    assert (root / "stages/train-head/model.safetensors").read_bytes() == first


def test_maps_beyond_cache_gb_are_made_anew_and_teach_the_same(root: Path) -> None:
    """In fp32, where no more than rounding differs."""
    found = []
    for most in (0, 8):
        assert not [entry for entry in kept.entries(root) if entry.kind == "activations"]
        train_head(
            tiny.make_detect_params(train={"precision": "fp32", "cache_gb": most}, train_head={"epochs": 2}), root
        )
        found.append(np.genfromtxt(root / "stages/train-head/history.csv", delimiter=",", skip_header=1))
    assert [entry for entry in kept.entries(root) if entry.kind == "activations"]
    np.testing.assert_allclose(found[0], found[1], atol=2e-3)


def test_the_history_has_the_columns_that_the_exam_reads(detect_project: Project) -> None:
    for stage in ("train-head", "fine-tune"):
        header = (detect_project.root / f"stages/{stage}/history.csv").read_text().splitlines()[0]
        assert header == "epoch,lr,train_loss,val_loss,val_AP,val_AP50"


def test_the_exam_of_a_detector(detect_project: Project) -> None:
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
    targets = detect.targets(both, modelfile.read(detect_project.root / "stages/train-head/model.safetensors")[1].input)
    for image, target in zip(both.images, targets, strict=True):
        if image.copy_of is None or not len(target):
            continue
        with Image.open(detect_project.root / image.file_name) as opened:
            picture = torch.from_numpy(np.asarray(opened.convert("RGB").resize((96, 96)), np.float32))
        _, x1, y1, x2, y2 = target[0].round().int().tolist()
        inside = picture[y1 + 3 : y2 - 3, x1 + 3 : x2 - 3].mean((0, 1))
        assert inside[1] < 80, "red or blue, not grey"
