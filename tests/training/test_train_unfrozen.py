"""Options of fine-tuning: each changes the model, stopped or not, and blocks unfreeze by the schedule."""

import itertools
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from headstart.models.backbone import create_backbone
from headstart.models.freeze import list_blocks
from headstart.training import checkpoint
from headstart.training.checkpoint import Checkpoints
from training.fine_tuned import before_and_after, model_and_history, modules_of_block


@pytest.mark.parametrize(
    "options",
    [
        {"mixup": 0.4, "cutmix": 1},
        {"sampling": "balanced"},
        {"unfreeze": [{"epoch": 0, "depth": -1}, {"epoch": 1, "depth": 3}]},
        {"clip_norm": 0.01, "accumulate": 2},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_option_changes_the_model_and_gives_the_same_bits_stopped_or_not(
    root: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fine_tuned = {"epochs": 3, "ema": 0, "batch_size": 4}
    plain = model_and_history(root, fine_tune=fine_tuned)
    first = model_and_history(root, fine_tune=fine_tuned | options)
    assert first[1] != plain[1]
    monkeypatch.setattr(checkpoint, "SAVE_INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "MAX_WRITE_SHARE", math.inf)
    saved = itertools.count(1)
    save = Checkpoints.save

    def killed(self: Checkpoints, state: dict[str, Any], number: int) -> None:
        save(self, state, number)
        if next(saved) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        model_and_history(root, fine_tune=fine_tuned | options)
    assert model_and_history(root, fine_tune=fine_tuned | options) == first


@pytest.mark.parametrize(
    "options",
    [{"lr": 0.02}, {"layer_decay": 0.5}, {"label_smoothing": 0.3}, {"ema": 0}, {"freeze_depth": 2}],
    ids=lambda options: next(iter(options)),
)
def test_an_option_changes_the_model_and_no_checkpoint_of_another_value_is_used(
    root: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SAVE_INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "MAX_WRITE_SHARE", math.inf)
    plain = model_and_history(root)
    first = model_and_history(root, fine_tune=options)
    shutil.rmtree(root / ".cache/checkpoints")
    assert model_and_history(root, fine_tune=options) == first
    assert first != plain


@pytest.mark.usefixtures("last_epoch_is_best")
@pytest.mark.parametrize("cached", [False, True])
def test_blocks_unfreeze_by_the_schedule(root: Path, cached: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Stopped after each epoch, the blocks unfrozen until then have changed."""
    names = {block.number: modules_of_block(block.parameters) for block in list_blocks(create_backbone(tiny.TRUNK))}
    for epochs, changed in ((1, set()), (2, {5}), (3, {3, 4, 5})):
        schedule = [{"epoch": 0, "depth": -1}, {"epoch": 1, "depth": 5}, {"epoch": 2, "depth": 3}][:epochs]
        depth = schedule[-1]["depth"]
        before, after = before_and_after(
            root, epochs=epochs, freeze_depth=depth, unfreeze=schedule, ema=0, cache_frozen=cached
        )
        for number, owners in names.items():
            weights = [name for name in before if name.rpartition(".")[0] in owners and before[name].ndim > 1]
            assert all(torch.equal(before[name], after[name]) != (number in changed) for name in weights), number
    assert "fine-tune: from epoch 3 on, 3 blocks are frozen" in capsys.readouterr().out
