"""Fine-tuning: frozen means frozen to the bit, and the file is a network that plain timm runs."""

import csv
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import tiny
from conftest import Project
from headstart import checkpoint, classify, freeze, modelfile, pool
from headstart.checkpoint import Checkpoints
from headstart.errors import UserError
from headstart.fine_tune import fine_tune
from headstart.tune import Autocast, groups
from headstart.weights import trunk


def before_and_after(root: Path, **fine_tuned: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    fine_tune(tiny.make_params(fine_tune=fine_tuned), root)
    return tuple(modelfile.read(root / f"stages/{name}/model.safetensors")[0] for name in ("train-head", "fine-tune"))  # type: ignore[return-value]


@pytest.fixture
def root(project: Project, tmp_path: Path) -> Path:
    """A copy of the project, up to train-head."""
    for name in ("fetch", "weights", "split", "augment", "train-head"):
        shutil.copytree(project.root / "stages" / name, tmp_path / "stages" / name)
    shutil.copytree(project.root / ".cache", tmp_path / ".cache")
    return tmp_path


@pytest.fixture
def last_epoch_is_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the val pictures finds a lower loss than the one before: what was trained is what is kept."""
    losses = itertools.count(100, -1)
    monkeypatch.setattr(classify, "score", lambda *_: {"val_loss": float(next(losses)), "val_accuracy": 0.5})


def of_block(names: tuple[str, ...]) -> set[str]:
    """Modules that own these parameters: their batch norms' statistics belong to the block as well."""
    return {f"trunk.{name.rpartition('.')[0]}" for name in names}


@pytest.mark.usefixtures("last_epoch_is_best")
@pytest.mark.parametrize("batch_norm", ["fixed", "update"])
@pytest.mark.parametrize(("depth", "frozen_blocks"), [(0, 0), (1, 1), (3, 3), (5, 5), (6, 6), (-1, 6)])
def test_frozen_is_frozen_to_the_bit(root: Path, depth: int, frozen_blocks: int, batch_norm: str) -> None:
    before, after = before_and_after(root, freeze_depth=depth, batch_norm=batch_norm, ema=0)
    assert list(after) == list(before)
    some = freeze.blocks(trunk(tiny.TRUNK))
    for block in some:
        owners = of_block(block.parameters)
        tensors = [name for name in before if name.rpartition(".")[0] in owners]
        assert any("running_mean" in name for name in tensors)
        if block.number < frozen_blocks:
            assert all(torch.equal(before[name], after[name]) for name in tensors), block.name
        else:
            assert all(not torch.equal(before[name], after[name]) for name in tensors if before[name].ndim > 1)
    head = [name for name in before if name.startswith("head.") and name.endswith("weight")]
    assert all(not torch.equal(before[name], after[name]) for name in head)


@pytest.mark.usefixtures("last_epoch_is_best")
def test_the_statistics_of_blocks_that_train_are_updated_where_asked(root: Path) -> None:
    before, after = before_and_after(root, freeze_depth=3, batch_norm="update")
    some = freeze.blocks(trunk(tiny.TRUNK))
    moved = {name for name in before if name.endswith(("running_mean", "running_var")) and name.startswith("trunk.")}
    moved = {name for name in moved if not torch.equal(before[name], after[name])}
    above = {owner for block in some[3:] for owner in of_block(block.parameters)}
    assert moved == {name for name in before if name.rpartition(".")[0] in above and "running" in name}


@pytest.mark.usefixtures("last_epoch_is_best")
@pytest.mark.parametrize("backbone", ["test_resnet", "resnetv2_18", "test_byobnet", "mobilenetv3_small_050"])
def test_fixed_statistics_are_fixed_where_batch_norm_cannot_be_folded_too(tmp_path: Path, backbone: str) -> None:
    """The function of the frozen statistics: train a step at no rate to speak of, and nothing may have changed."""
    tiny.make_pictures(tmp_path, 4)
    params = tiny.make_params(
        model={"backbone": backbone, "head": {}, "image_size": 64},
        train_head={"epochs": 1},
        fine_tune={"epochs": 1, "lr": 1e-12, "freeze_depth": 1, "weight_decay": 0, "ema": 0},
    )
    tiny.run(tmp_path, params, "fetch", "weights", "split", "augment", "train-head", "fine-tune")
    files = [modelfile.read(tmp_path / f"stages/{name}/model.safetensors") for name in ("train-head", "fine-tune")]
    pictures = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before, after = (classify.build(*file)(pictures) for file in files)
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-3)


def test_the_file_is_a_network_that_plain_timm_runs(project: Project) -> None:
    tensors, card = modelfile.read(project.root / "stages/fine-tune/model.safetensors")
    plain: nn.Module = timm.create_model(tiny.TRUNK, num_classes=0)
    under = {name.removeprefix("trunk."): t for name, t in tensors.items() if name.startswith("trunk.")}
    plain.load_state_dict(under, strict=True)
    network = classify.build(tensors, card)
    pictures = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network.head(plain.eval()(pictures)), network(pictures))
    assert card == modelfile.read(project.root / "stages/train-head/model.safetensors")[1]


def rows(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_what_is_kept_scores_as_the_history_says(project: Project) -> None:
    """The saved network, unfolded, on the val pictures: the loss of the best epoch again."""
    from headstart import pixels
    from headstart.batches import outputs
    from headstart.compute import Compute

    metrics = tiny.read_json(project.root / "stages/fine-tune/metrics.json")
    history = rows(project.root / "stages/fine-tune/history.csv")
    assert metrics["epochs"] == len(history) == 2
    assert metrics["best_epoch"] == 1 + min(range(2), key=lambda row: history[row]["val_loss"])
    best = history[metrics["best_epoch"] - 1]
    assert best["val_loss"] == pytest.approx(metrics["val_loss"], rel=1e-5)
    tensors, card = modelfile.read(project.root / "stages/fine-tune/model.safetensors")
    val = tiny.manifest(project.root, "split", "val").images
    seen = pixels.load(val, project.root, card.input, "decode")
    logits = outputs(classify.build(tensors, card), seen, card.input, Compute(torch.device("cpu"), bf16=False))
    scores = classify.score(logits, classify.targets(val, card.labels))
    assert scores["val_loss"] == pytest.approx(metrics["val_loss"], abs=0.02)  # bf16, where the machine has it


def test_metrics_and_blocks_count_every_parameter(project: Project) -> None:
    metrics = tiny.read_json(project.root / "stages/fine-tune/metrics.json")
    table = tiny.read_json(project.root / "stages/fine-tune/blocks.json")
    assert [row["state"] for row in table] == ["frozen"] * 3 + ["trains"] * 4
    for state, key in (("frozen", "frozen_parameters"), ("trains", "trained_parameters")):
        assert metrics[key] >= sum(row["parameters"] for row in table if row["state"] == state)
    network = classify.build(*modelfile.read(project.root / "stages/fine-tune/model.safetensors"))
    total = sum(parameter.numel() for parameter in network.parameters())
    assert sum(row["parameters"] for row in table) == total


def test_trained_parameters_do_not_count_statistics(project: Project) -> None:
    metrics = tiny.read_json(project.root / "stages/fine-tune/metrics.json")
    table = tiny.read_json(project.root / "stages/fine-tune/blocks.json")
    assert metrics["trained_parameters"] == sum(row["parameters"] for row in table if row["state"] == "trains")


def test_too_large_a_depth_stops_before_anything_is_written(root: Path) -> None:
    with pytest.raises(UserError, match="freeze_depth: 9: this backbone has 6 blocks"):
        before_and_after(root, freeze_depth=9)
    assert not (root / "stages/fine-tune").exists()


def test_no_model_to_start_from(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train-head/model\.safetensors: no such file; run the stage that writes it"):
        fine_tune(tiny.make_params(), tmp_path)


def test_a_rate_that_blows_up_says_so(root: Path) -> None:
    with pytest.raises(
        UserError, match=r"params\.yaml: fine_tune\.lr: 1e\+30: the loss is (nan|inf) in epoch 1, batch"
    ):
        before_and_after(root, lr=1e30, ema=0)
    assert not (root / "stages/fine-tune/model.safetensors").exists()


def test_each_block_has_the_next_ones_rate_times_the_decay(project: Project) -> None:
    network = classify.build(*modelfile.read(project.root / "stages/fine-tune/model.safetensors"))
    some = freeze.blocks(network.trunk)
    freeze.freeze(network.trunk, some, 2)
    found = groups(network, some, 0.5)
    scale = {id(p): group.scale for group in found for p in group.parameters}
    decays = {id(p): group.weight_decay is None for group in found for p in group.parameters}
    number = {f"trunk.{name}": block.number for block in some for name in block.parameters}
    for name, parameter in network.named_parameters():
        if number.get(name, 9) < 2:
            assert id(parameter) not in scale
        else:
            assert scale[id(parameter)] == 0.5 ** (6 - number.get(name, 6)), name
            assert decays[id(parameter)] == (parameter.ndim > 1), "biases and norms do not decay"


def test_the_rate_in_the_history_falls(project: Project) -> None:
    history = rows(project.root / "stages/fine-tune/history.csv")
    assert list(history[0]) == ["epoch", "lr", "train_loss", "val_loss", "val_accuracy"]
    assert history[0]["lr"] > history[1]["lr"] > 0


def test_autocast_is_close() -> None:
    from headstart.compute import Compute

    network = classify.Classifier(trunk(tiny.TRUNK), nn.Linear(256, 2)).eval()
    pictures = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        wanted = network(pictures)
        found = Autocast(network, network.trunk, Compute(torch.device("cpu"), bf16=True), "fixed")(pictures)
    assert (found.float() - wanted).abs().max() < 0.05 * wanted.abs().max() + 0.01


@pytest.mark.parametrize("cached", [False, True])
def test_bf16_learns_what_fp32_learns(root: Path, cached: bool) -> None:
    """The same losses, epoch by epoch, but for bf16's two or three digits."""
    found = []
    for precision in ("fp32", "bf16"):
        how = {"epochs": 4, "lr": 3e-3, "cache_frozen": cached}
        try:
            fine_tune(tiny.make_params(train={"precision": precision}, fine_tune=how), root)
        except UserError as error:
            pytest.skip(str(error))
        history = rows(root / "stages/fine-tune/history.csv")
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


@pytest.mark.usefixtures("last_epoch_is_best")
@pytest.mark.parametrize("batch_norm", ["fixed", "update"])
@pytest.mark.parametrize("depth", [1, 3, 5, -1])
def test_on_kept_activations_frozen_is_frozen_too(root: Path, depth: int, batch_norm: str) -> None:
    before, after = before_and_after(root, freeze_depth=depth, batch_norm=batch_norm, ema=0, cache_frozen=True)
    some = freeze.blocks(trunk(tiny.TRUNK))
    for block in some:
        owners = of_block(block.parameters)
        tensors = [name for name in before if name.rpartition(".")[0] in owners]
        if depth == -1 or block.number < depth:
            assert all(torch.equal(before[name], after[name]) for name in tensors), block.name
        else:
            assert all(not torch.equal(before[name], after[name]) for name in tensors if before[name].ndim > 1)


def test_kept_activations_train_as_the_pictures_themselves_do(root: Path) -> None:
    """Nothing is changed by augmentation: both ways see the same, and lose the same."""
    found = []
    for cached in (False, True):
        plain = dict.fromkeys(("horizontal_flip", "vertical_flip", "rotation", "shift", "brightness", "noise"), 0)
        params = tiny.make_params(
            augment={**plain, "copies": 0},
            fine_tune={"cache_frozen": cached, "lr": 1e-3},
            train={"precision": "fp32"},
        )
        tiny.run(root, params, "augment", "fine-tune")
        found.append(rows(root / "stages/fine-tune/history.csv"))
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, rel=2e-3)


def test_the_frozen_blocks_run_once_a_picture_in_all_stages(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What train-head's pictures passed through is there for fine-tune; editing its rate runs none of it."""
    shutil.rmtree(root / ".cache")
    params = tiny.make_params(fine_tune={"cache_frozen": True})
    tiny.run(root, params, "train-head")

    def forbidden(*_: object) -> None:
        pytest.fail("a picture was opened")

    monkeypatch.setattr("headstart.pixels.decode", forbidden)
    tiny.run(root, params, "fine-tune")
    first = (root / "stages/fine-tune/model.safetensors").read_bytes()
    tiny.run(root, tiny.make_params(fine_tune={"cache_frozen": True, "lr": 0.02}), "fine-tune")
    monkeypatch.undo()
    shutil.rmtree(root / ".cache")
    tiny.run(root, params, "fine-tune")
    assert (root / "stages/fine-tune/model.safetensors").read_bytes() == first, "with an empty cache, the same model"


def test_copies_are_seen_on_kept_activations(root: Path) -> None:
    """Each epoch another view of a picture: with copies, another model."""
    files = []
    for copies in (0, 2):
        params = tiny.make_params(augment={"copies": copies}, fine_tune={"cache_frozen": True})
        tiny.run(root, params, "augment", "fine-tune")
        files.append((root / "stages/fine-tune/model.safetensors").read_bytes())
    assert files[0] != files[1]


def test_views_take_turns() -> None:
    from headstart.coco import Image
    from headstart.lessons import _views

    def picture(number: int, of: int | None = None) -> Image:
        name = f"{number}.png"
        return Image(id=number, file_name=name, width=1, height=1, sha256=name, source="s", label="x", copy_of=of)

    originals = (picture(1), picture(2))
    views = _views(originals, (*originals, picture(3, 1), picture(4, 2), picture(5, 1)))
    assert [[image.id for image in some] for some in views] == [[1, 3, 5], [2, 4]]


def model_and_history(root: Path, **changes: Any) -> list[bytes]:
    fine_tune(tiny.make_params(**changes), root)
    return [(root / f"stages/fine-tune/{name}").read_bytes() for name in ("model.safetensors", "history.csv")]


@pytest.mark.parametrize(
    "how",
    [
        {"mixup": 0.4, "cutmix": 1},
        {"sampling": "balanced"},
        {"unfreeze": [{"epoch": 0, "depth": -1}, {"epoch": 1, "depth": 3}]},
        {"clip_norm": 0.01, "accumulate": 2},
    ],
    ids=lambda how: next(iter(how)),
)
def test_an_option_changes_the_model_and_gives_the_same_bits_stopped_or_not(
    root: Path, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fine_tuned = {"epochs": 3, "ema": 0, "batch_size": 4}
    plain = model_and_history(root, fine_tune=fine_tuned)
    first = model_and_history(root, fine_tune=fine_tuned | how)
    assert first[1] != plain[1]
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    saved = itertools.count(1)
    save = Checkpoints.save

    def killed(self: Checkpoints, state: dict[str, Any], number: int) -> None:
        save(self, state, number)
        if next(saved) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        model_and_history(root, fine_tune=fine_tuned | how)
    assert model_and_history(root, fine_tune=fine_tuned | how) == first


@pytest.mark.parametrize(
    "how",
    [{"lr": 0.02}, {"layer_decay": 0.5}, {"label_smoothing": 0.3}, {"ema": 0}, {"freeze_depth": 2}],
    ids=lambda how: next(iter(how)),
)
def test_an_option_counts_and_a_checkpoint_of_another_value_does_not(
    root: Path, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    plain = model_and_history(root)
    first = model_and_history(root, fine_tune=how)
    shutil.rmtree(root / ".cache/checkpoints")
    assert model_and_history(root, fine_tune=how) == first
    assert first != plain


@pytest.mark.usefixtures("last_epoch_is_best")
@pytest.mark.parametrize("cached", [False, True])
def test_blocks_thaw_when_the_schedule_says(root: Path, cached: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Stopped after each epoch, what has moved are the blocks freed until then."""
    names = {block.number: of_block(block.parameters) for block in freeze.blocks(trunk(tiny.TRUNK))}
    for epochs, moved in ((1, set()), (2, {5}), (3, {3, 4, 5})):
        thaws = [{"epoch": 0, "depth": -1}, {"epoch": 1, "depth": 5}, {"epoch": 2, "depth": 3}][:epochs]
        depth = thaws[-1]["depth"]
        before, after = before_and_after(
            root, epochs=epochs, freeze_depth=depth, unfreeze=thaws, ema=0, cache_frozen=cached
        )
        for number, owners in names.items():
            weights = [name for name in before if name.rpartition(".")[0] in owners and before[name].ndim > 1]
            assert all(torch.equal(before[name], after[name]) != (number in moved) for name in weights), number
    assert "fine-tune: from epoch 3 on, 3 blocks are frozen" in capsys.readouterr().out


def test_pictures_read_from_disk_every_epoch_train_the_same_model(root: Path) -> None:
    kept = model_and_history(root)
    shutil.rmtree(root / ".cache/pixels")
    assert model_and_history(root, train={"cache_gb": 0}) == kept
    assert not (root / ".cache/pixels").exists()


def test_batches_made_ahead_train_the_same_model(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = model_and_history(root, train={"cache_gb": 0})
    monkeypatch.setattr(pool, "ahead", lambda function, items: map(function, items))
    assert model_and_history(root, train={"cache_gb": 0}) == ahead


def test_balanced_sampling_shows_a_rare_label_as_often(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []
    loss = classify.loss

    def watched(logits: Tensor, targets: Tensor, *more: Any) -> Tensor:
        shown.extend(targets.tolist())
        return loss(logits, targets, *more)

    monkeypatch.setattr(classify, "loss", watched)
    path = root / "stages/split/train.json"
    whole = json.loads(path.read_text())
    rare = [image["id"] for image in whole["images"] if image["label"] == "red"][1:]
    whole["images"] = [image for image in whole["images"] if image["id"] not in rare]
    path.write_text(json.dumps(whole))
    for sampling, often in (("shuffled", 1), ("balanced", len(whole["images"]) // 2)):
        shown.clear()
        before_and_after(root, epochs=1, sampling=sampling)
        assert shown.count(1) in (often, often + 1)


def test_blocks_are_shown(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before_and_after(root, freeze_depth=2, epochs=1)
    lines = capsys.readouterr().out.splitlines()
    assert sum("frozen" in line for line in lines) == 2
    assert sum("trains" in line for line in lines) == 5
    assert json.loads((root / "stages/fine-tune/blocks.json").read_text())[0]["name"] == "conv_stem"
