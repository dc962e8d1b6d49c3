"""Fine-tuning: frozen means frozen to the bit, and the file is a network that plain timm runs."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import tiny
from conftest import Project
from headstart.base.arrays import Ints
from headstart.base.errors import UserError
from headstart.engine.device import Compute
from headstart.engine.inference import run_inference
from headstart.engine.pixels import load_pixels
from headstart.models import classifier
from headstart.models.backbone import create_backbone
from headstart.models.file import read_model_file
from headstart.models.freeze import list_blocks
from headstart.training.fine_tune import not_better_line
from headstart.training.val_change import ValChange
from tiny import fine_tune
from training.fine_tuned import before_and_after, model_and_history, modules_of_block, read_history


@pytest.mark.usefixtures("last_epoch_is_best")
@pytest.mark.parametrize("batch_norm", ["fixed", "update"])
@pytest.mark.parametrize(("depth", "frozen_blocks"), [(0, 0), (1, 1), (3, 3), (5, 5), (6, 6), (-1, 6)])
def test_frozen_is_frozen_to_the_bit(root: Path, depth: int, frozen_blocks: int, batch_norm: str) -> None:
    before, after = before_and_after(root, freeze_depth=depth, batch_norm=batch_norm, ema=0)
    assert list(after) == list(before)
    blocks = list_blocks(create_backbone(tiny.TRUNK))
    for block in blocks:
        owners = modules_of_block(block.parameters)
        tensors = [name for name in before if name.rpartition(".")[0] in owners]
        assert any("running_mean" in name for name in tensors)
        if block.number < frozen_blocks:
            assert all(torch.equal(before[name], after[name]) for name in tensors), block.name
        else:
            assert all(not torch.equal(before[name], after[name]) for name in tensors if before[name].ndim > 1)
    head = [name for name in before if name.startswith("head.") and name.endswith("weight")]
    assert all(not torch.equal(before[name], after[name]) for name in head)


@pytest.mark.usefixtures("last_epoch_is_best")
def test_batch_norm_update_updates_the_statistics_of_blocks_that_train(root: Path) -> None:
    before, after = before_and_after(root, freeze_depth=3, batch_norm="update")
    blocks = list_blocks(create_backbone(tiny.TRUNK))
    moved = {name for name in before if name.endswith(("running_mean", "running_var")) and name.startswith("trunk.")}
    moved = {name for name in moved if not torch.equal(before[name], after[name])}
    above = {owner for block in blocks[3:] for owner in modules_of_block(block.parameters)}
    assert moved == {name for name in before if name.rpartition(".")[0] in above and "running" in name}


@pytest.mark.usefixtures("last_epoch_is_best")
@pytest.mark.parametrize("backbone", ["test_resnet", "resnetv2_18", "test_byobnet", "mobilenetv3_small_050"])
def test_fixed_statistics_are_fixed_where_batch_norm_cannot_be_folded_too(tmp_path: Path, backbone: str) -> None:
    """One epoch at a learning rate of almost zero must not change what the network computes."""
    tiny.make_pictures(tmp_path, 4)
    params = tiny.make_params(
        model={"backbone": backbone, "head": {}, "image_size": 64},
        train_head={"epochs": 1},
        fine_tune={"epochs": 1, "lr": 1e-12, "freeze_depth": 1, "weight_decay": 0, "ema": 0},
    )
    tiny.run(tmp_path, params, "fetch", "weights", "split", "augment", "train-head", "fine-tune")
    files = [read_model_file(tmp_path / f"stages/{name}/model.safetensors") for name in ("train-head", "fine-tune")]
    pictures = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before, after = (classifier.build(*file)(pictures) for file in files)
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-3)


def test_the_file_is_a_network_that_plain_timm_runs(project: Project) -> None:
    tensors, spec = read_model_file(project.root / "stages/fine-tune/model.safetensors")
    plain: nn.Module = timm.create_model(tiny.TRUNK, num_classes=0)
    under = {name.removeprefix("trunk."): t for name, t in tensors.items() if name.startswith("trunk.")}
    plain.load_state_dict(under, strict=True)
    network = classifier.build(tensors, spec)
    pictures = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network.head(plain.eval()(pictures)), network(pictures))
    assert spec == read_model_file(project.root / "stages/train-head/model.safetensors")[1]


def test_the_saved_network_has_the_metrics_of_the_best_epoch(project: Project) -> None:
    """The saved network, batch norm unfolded, has the best epoch's loss on the val pictures."""
    metrics = tiny.read_json(project.root / "stages/fine-tune/metrics.json")
    history = read_history(project.root / "stages/fine-tune/history.csv")
    assert metrics["epochs"] == len(history) == 2
    assert metrics["best_epoch"] == 1 + min(range(2), key=lambda row: history[row]["val_loss"])
    best = history[metrics["best_epoch"] - 1]
    assert best["val_loss"] == pytest.approx(metrics["val_loss"], rel=1e-5)
    tensors, spec = read_model_file(project.root / "stages/fine-tune/model.safetensors")
    val = tiny.manifest(project.root, "split", "val").images
    pixels = load_pixels(val, project.root, spec.input, "decode")
    logits = run_inference(classifier.build(tensors, spec), pixels, spec.input, Compute(torch.device("cpu")))
    val_metrics = classifier.compute_val_metrics(logits, classifier.encode_targets(val, spec.labels))
    assert val_metrics["val_loss"] == pytest.approx(metrics["val_loss"], abs=0.02)  # bf16, where the machine has it


def test_metrics_and_blocks_count_every_parameter(project: Project) -> None:
    metrics = tiny.read_json(project.root / "stages/fine-tune/metrics.json")
    table = tiny.read_json(project.root / "stages/fine-tune/blocks.json")
    assert [row["state"] for row in table] == ["frozen"] * 3 + ["trains"] * 4
    for state, key in (("frozen", "frozen_parameters"), ("trains", "trained_parameters")):
        assert metrics[key] >= sum(row["parameters"] for row in table if row["state"] == state)
    network = classifier.build(*read_model_file(project.root / "stages/fine-tune/model.safetensors"))
    total = sum(parameter.numel() for parameter in network.parameters())
    assert sum(row["parameters"] for row in table) == total


def test_trained_parameters_do_not_count_statistics(project: Project) -> None:
    metrics = tiny.read_json(project.root / "stages/fine-tune/metrics.json")
    table = tiny.read_json(project.root / "stages/fine-tune/blocks.json")
    assert metrics["trained_parameters"] == sum(row["parameters"] for row in table if row["state"] == "trains")


@pytest.mark.parametrize("options", [{}, {"batch_norm": "update"}, {"cache_frozen": True}], ids=str)
def test_where_no_epoch_is_better_the_head_only_model_is_kept_to_the_bit(
    root: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = itertools.count(1)
    monkeypatch.setattr(classifier, "compute_val_metrics", lambda *_: {"val_loss": float(next(losses))})
    before, after = before_and_after(root, **options)
    assert list(after) == list(before)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    stages = root / "stages"
    assert (stages / "fine-tune/model.safetensors").read_bytes() == (
        stages / "train-head/model.safetensors"
    ).read_bytes()
    metrics = tiny.read_json(stages / "fine-tune/metrics.json")
    table = tiny.read_json(stages / "fine-tune/blocks.json")
    assert (metrics["best_epoch"], metrics["epochs"], metrics["val_loss"]) == (0, 2, 1)
    assert {row["state"] for row in table} == {"frozen"}
    assert metrics["frozen_parameters"] == sum(row["parameters"] for row in table)
    assert metrics["trained_parameters"] == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "fine-tune: no epoch of fine-tuning beat the head alone; the head-only model was kept; "
        "try fine_tune.lr: 3.3e-03 or a greater freeze_depth "
        "(`headstart lr-find fine-tune` suggests a rate; val decides)"
    )


@pytest.mark.parametrize("options", [{}, {"cache_frozen": True}, {"class_weights": "balanced"}], ids=str)
def test_one_se_keeps_the_head_unless_val_shows_a_gain(
    root: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The standard error of the paired change of val_loss decides, and metrics.json and the last line have it."""
    seen: list[tuple[float, int]] = []
    errors = iter([0.375, 0.125])

    def change_of(epoch: int, before: Tensor, after: Tensor, units: Ints) -> ValChange:
        seen.append((float((after - before).mean()), len(units)))
        return ValChange(epoch, -0.25, next(errors), len(before))

    monkeypatch.setattr(ValChange, "of", change_of)
    stages = root / "stages"
    lowest, _ = model_and_history(root, fine_tune=options)
    without = tiny.read_json(stages / "fine-tune/metrics.json")
    assert without["best_epoch"] == 2, "there is a lower loss to be kept or not"
    assert "val_loss_change" not in without
    within_noise, _ = model_and_history(root, fine_tune=options | {"keep": "one_se"})
    line = capsys.readouterr().out.splitlines()[-1]
    metrics = tiny.read_json(stages / "fine-tune/metrics.json")
    assert within_noise == (stages / "train-head/model.safetensors").read_bytes()
    assert (metrics["best_epoch"], metrics["epochs"], metrics["trained_parameters"]) == (0, 2, 0)
    assert line == (
        "fine-tune: Fine-tuning was not kept, but the head-only model: its best epoch (2) lowered the val loss by "
        "0.250 ± 0.375 (standard error, 6 pictures), which may be chance. fine_tune.keep: lowest keeps it all the same."
    )
    gained, _ = model_and_history(root, fine_tune=options | {"keep": "one_se"})
    kept = tiny.read_json(stages / "fine-tune/metrics.json")
    assert gained == lowest
    assert kept == without | {
        "val_loss_change": -0.25,
        "val_loss_change_error": 0.125,
        "val_loss_change_epoch": 2,
        "val_loss_change_pictures": 6,
    }
    assert [pictures for _, pictures in seen] == [6, 6]
    assert [change for change, _ in seen] == pytest.approx([without["val_loss"] - metrics["val_loss"]] * 2, abs=1e-6)


def test_the_line_names_no_greater_freeze_depth_where_there_is_none() -> None:
    section = tiny.make_params(fine_tune={"lr": 3e-4, "freeze_depth": -1, "layer_decay": 1}).fine_tune
    line = not_better_line(section, {}, can_freeze_more=False)
    assert "; the head-only model was kept; try fine_tune.lr: 1.0e-04 (`headstart lr-find" in line


def test_what_is_kept_from_before_an_unfreeze_has_the_bits_of_its_epoch(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epoch 2 of 4 is kept; blocks 3 and 4 unfreeze in epoch 4."""
    losses = iter([5.0, 4, 3, 6, 6])
    monkeypatch.setattr(classifier, "compute_val_metrics", lambda *_: {"val_loss": next(losses)})
    schedule = [{"epoch": 0, "depth": -1}, {"epoch": 1, "depth": 5}, {"epoch": 3, "depth": 3}]
    before, after = before_and_after(root, epochs=4, unfreeze=schedule, ema=0)
    table = tiny.read_json(root / "stages/fine-tune/blocks.json")
    metrics = tiny.read_json(root / "stages/fine-tune/metrics.json")
    assert metrics["best_epoch"] == 2
    assert [row["state"] for row in table] == ["frozen"] * 5 + ["trains"] * 2
    assert metrics["trained_parameters"] == sum(row["parameters"] for row in table[5:])
    for block in list_blocks(create_backbone(tiny.TRUNK)):
        owners = modules_of_block(block.parameters)
        tensors = [name for name in before if name.rpartition(".")[0] in owners]
        same = [torch.equal(before[name], after[name]) for name in tensors if block.number < 5 or before[name].ndim > 1]
        assert all(same) if block.number < 5 else not any(same), block.name


def test_too_large_a_depth_stops_before_anything_is_written(root: Path) -> None:
    with pytest.raises(UserError, match="freeze_depth: 9: this backbone has 6 blocks"):
        before_and_after(root, freeze_depth=9)
    assert not (root / "stages/fine-tune").exists()


def test_no_model_to_start_from(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train-head/model\.safetensors: no such file; run the stage that writes it"):
        fine_tune(tiny.make_params(), tmp_path)


def test_a_learning_rate_that_diverges_is_an_error(root: Path) -> None:
    with pytest.raises(
        UserError, match=r"params\.yaml: fine_tune\.lr: 1e\+30: the loss is (nan|inf) in epoch 1, batch"
    ):
        before_and_after(root, lr=1e30, ema=0)
    assert not (root / "stages/fine-tune/model.safetensors").exists()


def test_the_learning_rate_in_the_history_falls(project: Project) -> None:
    history = read_history(project.root / "stages/fine-tune/history.csv")
    assert list(history[0]) == ["epoch", "lr", "train_loss", "val_loss", "val_accuracy"]
    assert history[0]["lr"] > history[1]["lr"] > 0


@pytest.mark.parametrize("cached", [False, True])
def test_bf16_learns_what_fp32_learns(root: Path, cached: bool) -> None:
    """The same losses, epoch by epoch, but for bf16's two or three digits."""
    found = []
    for precision in ("fp32", "bf16"):
        options = {"epochs": 4, "lr": 3e-3, "cache_frozen": cached}
        try:
            fine_tune(tiny.make_params(train={"precision": precision}, fine_tune=options), root)
        except UserError as error:
            pytest.skip(str(error))
        history = read_history(root / "stages/fine-tune/history.csv")
        found.append([[row["train_loss"], row["val_loss"]] for row in history])
    assert found[0] != found[1]
    torch.testing.assert_close(torch.tensor(found[1]), torch.tensor(found[0]), atol=0.02, rtol=0.02)


def test_other_augmentation_other_training(root: Path) -> None:
    def weights(**changes: Any) -> bytes:
        fine_tune(tiny.make_params(**changes), root)
        return (root / "stages/fine-tune/model.safetensors").read_bytes()

    first = weights()
    assert weights() == first
    assert weights(augment={"rotation": 6}) != first
    assert weights(seed=4) != first
    assert weights(augment={"copies": 5}) == first, "stored copies are train-head's"


def test_blocks_are_printed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before_and_after(root, freeze_depth=2, epochs=1)
    lines = capsys.readouterr().out.splitlines()
    assert sum("frozen" in line for line in lines) == 2
    assert sum("trains" in line for line in lines) == 5
    assert json.loads((root / "stages/fine-tune/blocks.json").read_text())[0]["name"] == "conv_stem"
