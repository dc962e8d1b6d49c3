"""A classifier's batches: cached activations train as pictures do, and neither caches nor threads change the model."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from headstart.base.manifest import Image
from headstart.models import classifier
from headstart.models.backbone import create_backbone
from headstart.models.freeze import list_blocks
from headstart.training.classifier_batches import _list_views
from training.fine_tuned import before_and_after, model_and_history, modules_of_block, read_history


@pytest.mark.usefixtures("last_epoch_is_best")
@pytest.mark.parametrize("batch_norm", ["fixed", "update"])
@pytest.mark.parametrize("depth", [1, 3, 5, -1])
def test_on_cached_activations_frozen_is_frozen_too(root: Path, depth: int, batch_norm: str) -> None:
    before, after = before_and_after(root, freeze_depth=depth, batch_norm=batch_norm, ema=0, cache_frozen=True)
    blocks = list_blocks(create_backbone(tiny.TRUNK))
    for block in blocks:
        owners = modules_of_block(block.parameters)
        tensors = [name for name in before if name.rpartition(".")[0] in owners]
        if depth == -1 or block.number < depth:
            assert all(torch.equal(before[name], after[name]) for name in tensors), block.name
        else:
            assert all(not torch.equal(before[name], after[name]) for name in tensors if before[name].ndim > 1)


def test_cached_activations_train_as_the_pictures_themselves_do(root: Path) -> None:
    """Without augmentation both have the same inputs, and the same losses."""
    found = []
    for cached in (False, True):
        plain = dict.fromkeys(("horizontal_flip", "vertical_flip", "rotation", "shift", "brightness", "noise"), 0)
        params = tiny.make_params(
            augment={**plain, "copies": 0},
            fine_tune={"cache_frozen": cached, "lr": 1e-3},
            train={"precision": "fp32"},
        )
        tiny.run(root, params, "augment", "fine-tune")
        found.append(read_history(root / "stages/fine-tune/history.csv"))
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, rel=2e-3)


def test_the_frozen_blocks_run_once_a_picture_in_all_stages(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train-head caches their activations for fine-tune; another learning rate runs none of them again."""
    shutil.rmtree(root / ".cache")
    params = tiny.make_params(fine_tune={"cache_frozen": True})
    tiny.run(root, params, "train-head")

    def forbidden(*_: object) -> None:
        pytest.fail("a picture was opened")

    for module in ("engine.pixels", "features.embeddings"):
        monkeypatch.setattr(f"headstart.{module}.read_pixels", forbidden)
    tiny.run(root, params, "fine-tune")
    first = (root / "stages/fine-tune/model.safetensors").read_bytes()
    tiny.run(root, tiny.make_params(fine_tune={"cache_frozen": True, "lr": 0.02}), "fine-tune")
    monkeypatch.undo()
    shutil.rmtree(root / ".cache")
    tiny.run(root, params, "fine-tune")
    assert (root / "stages/fine-tune/model.safetensors").read_bytes() == first, "with an empty cache, the same model"


def test_an_annotator_s_doubt_is_in_the_targets(root: Path) -> None:
    """A confidence of 0.75 is what training aims at; the loss on val is of the label itself."""
    path = root / "stages/split/train.json"
    manifest = json.loads(path.read_text())
    histories = []
    for confidence in (None, 1.0, 0.75):
        for image in manifest["images"]:
            image["confidence"] = confidence
        path.write_text(json.dumps(manifest))
        _, history = model_and_history(root, augment={"copies": 1}, fine_tune={"lr": 1e-12, "epochs": 1})
        histories.append(history)
    sure, same, unsure = ([float(cell) for cell in text.decode().split()[1].split(",")] for text in histories)
    assert same == pytest.approx(sure, rel=1e-4)
    assert unsure[3] == pytest.approx(sure[3], rel=1e-4), "val_loss"
    assert unsure[2] > sure[2] * 1.01, "train_loss: this head is surer than 0.75"


def test_cached_activations_include_the_stored_copies(root: Path) -> None:
    """Each epoch has another view of a picture: with copies, another model."""
    files = []
    nothing = dict.fromkeys(("horizontal_flip", "vertical_flip", "rotation", "shift", "brightness", "noise"), 0)
    for amounts in ({"copies": 0, **nothing}, {"copies": 2}):
        params = tiny.make_params(augment=amounts, fine_tune={"cache_frozen": True})
        tiny.run(root, params, "augment", "fine-tune")
        files.append((root / "stages/fine-tune/model.safetensors").read_bytes())
    assert files[0] != files[1]


def test_pictures_read_from_disk_every_epoch_train_the_same_model(root: Path) -> None:
    cached = model_and_history(root)
    shutil.rmtree(root / ".cache/pixels")
    assert model_and_history(root, train={"cache_gb": 0}) == cached
    assert not (root / ".cache/pixels").exists()


def test_batches_made_ahead_train_the_same_model(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = model_and_history(root, train={"cache_gb": 0})
    monkeypatch.setattr("headstart.engine.streams.prefetch", lambda function, items: map(function, items))
    assert model_and_history(root, train={"cache_gb": 0}) == ahead


def test_balanced_sampling_shows_a_rare_label_as_often(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels: list[int] = []
    loss = classifier.loss

    def recorded(logits: Tensor, targets: Tensor, *more: Any) -> Tensor:
        labels.extend(targets.tolist())
        return loss(logits, targets, *more)

    monkeypatch.setattr(classifier, "loss", recorded)
    path = root / "stages/split/train.json"
    manifest = json.loads(path.read_text())
    rare = [image["id"] for image in manifest["images"] if image["label"] == "red"][1:]
    manifest["images"] = [image for image in manifest["images"] if image["id"] not in rare]
    path.write_text(json.dumps(manifest))
    for sampling, often in (("shuffled", 1), ("balanced", len(manifest["images"]) // 2)):
        labels.clear()
        before_and_after(root, epochs=1, sampling=sampling)
        assert labels.count(1) in (often, often + 1)


def test_views_are_originals_with_their_copies() -> None:
    def picture(number: int, of: int | None = None) -> Image:
        name = f"{number}.png"
        return Image(id=number, file_name=name, width=1, height=1, sha256=name, source="s", label="x", copy_of=of)

    originals = (picture(1), picture(2))
    views = _list_views(originals, (*originals, picture(3, 1), picture(4, 2), picture(5, 1)))
    assert [[image.id for image in of_picture] for of_picture in views] == [[1, 3, 5], [2, 4]]
