"""One step of training: accumulated batches, clipped gradients, groups, and the moving average of the weights."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.params.training import TrainingStageParams
from headstart.training.checkpoint import Checkpoints
from headstart.training.loop import train_loop
from headstart.training.optimizer import AdamW, ParamGroup
from headstart.training.schedule import lr_factor
from training.toy import make_params, scripted_validation


def weights_after_an_epoch(
    folder: Path, params: TrainingStageParams, inputs: Tensor, parts: Sequence[int]
) -> list[Tensor]:
    """Weights of a linear layer after one epoch on these inputs, in batches of these sizes."""
    torch.manual_seed(0)
    model = nn.Linear(5, 2)
    targets = torch.arange(len(inputs)) % 2
    train_loop(
        model,
        [ParamGroup(list(model.parameters()))],
        batches=lambda epoch, first: zip(
            torch.split(inputs, list(parts)), torch.split(targets, list(parts)), strict=True
        ),
        steps=len(parts),
        loss=F.cross_entropy,
        validate=scripted_validation(model, (2, 1), []),
        params=params,
        history=folder / "history.csv",
        stage="train-head",
        batch_files=lambda epoch, batch: [],
        checkpoints=Checkpoints(folder / "checkpoints"),
    )
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("parts", [(4, 4, 4), (2, 5, 5), (6, 6)])
def test_accumulated_batches_are_one_large_batch(tmp_path: Path, parts: Sequence[int]) -> None:
    """Of other sizes too, and when the epoch ends before `accumulate` batches are done."""
    inputs = torch.randn(12, 5, generator=torch.Generator().manual_seed(2))
    params = make_params(epochs=1, warmup_epochs=0, weight_decay=0.1)
    whole = weights_after_an_epoch(tmp_path / "whole", params, inputs, [12])
    # Constant but for the schedule: a step's rate is that of its last batch.
    accumulated = params.model_copy(update={"accumulate": 3})
    flat = params.lr * lr_factor(len(parts) - 1, len(parts), params)
    found = weights_after_an_epoch(
        tmp_path / "parts", accumulated.model_copy(update={"lr": params.lr * params.lr / flat}), inputs, parts
    )
    for one, other in zip(whole, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_clip_norm_is_the_largest_norm_of_a_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    step = AdamW.step

    def recorded(self: AdamW, rate: float) -> None:
        grads = [p.grad for group in self.groups for p in group.parameters if p.grad is not None]
        seen.append(torch.cat([grad.flatten() for grad in grads]).norm().item())
        step(self, rate)

    monkeypatch.setattr(AdamW, "step", recorded)
    inputs = 50 * torch.randn(12, 5, generator=torch.Generator().manual_seed(2))
    weights_after_an_epoch(tmp_path / "free", make_params(epochs=1), inputs, [6, 6])
    free, seen[:] = list(seen), []
    assert min(free) > 1
    weights_after_an_epoch(tmp_path / "cut", make_params(epochs=1, clip_norm=0.5), inputs, [6, 6])
    assert seen == pytest.approx([0.5, 0.5], rel=1e-3)
    seen.clear()
    weights_after_an_epoch(tmp_path / "high", make_params(epochs=1, clip_norm=1e6), inputs, [6, 6])
    assert seen[0] == pytest.approx(free[0]), "a smaller one is left alone"


def test_lr_scale_is_the_share_of_a_group(tmp_path: Path) -> None:
    """One step of AdamW moves every weight by about its learning rate."""
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    first, second = ([*layer.parameters()] for layer in model)
    train_loop(
        model,
        [ParamGroup(first, 0.1), ParamGroup(second)],
        batches=lambda epoch, first: iter([(torch.randn(16, 5), torch.arange(16) % 2)]),
        steps=1,
        loss=F.cross_entropy,
        validate=scripted_validation(model, (2, 1), []),
        params=make_params(epochs=1, lr=0.01),
        history=tmp_path / "history.csv",
        stage="train-head",
        batch_files=lambda epoch, batch: [],
        checkpoints=Checkpoints(tmp_path / "checkpoints"),
    )
    moved = [(parameter - old).abs().max().item() for parameter, old in zip(model.parameters(), before, strict=True)]
    assert moved == pytest.approx([0.001, 0.001, 0.01, 0.01], rel=0.01)


def test_ema_by_hand(tmp_path: Path) -> None:
    """With `ema` the moving average of the weights is validated; here it is computed by hand."""
    steps: list[Tensor] = []
    model = nn.Linear(5, 2)
    decay, average = 0.6, model.weight.detach().clone()

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        steps.append(model.weight.detach().clone())  # before this step, so after the one before
        return F.cross_entropy(logits, targets)

    generator = torch.Generator().manual_seed(0)
    data = [(torch.randn(8, 5, generator=generator), torch.arange(8) % 2) for _ in range(20)]
    seen: list[dict[str, Tensor]] = []
    train_loop(
        model,
        [ParamGroup(list(model.parameters()))],
        batches=lambda epoch, first: iter(data[10 * epoch - 10 : 10 * epoch]),
        steps=10,
        loss=loss,
        validate=scripted_validation(model, (3, 2, 1), seen),
        params=make_params(epochs=2, ema=decay),
        history=tmp_path / "history.csv",
        stage="train-head",
        batch_files=lambda epoch, batch: [],
        checkpoints=Checkpoints(tmp_path / "checkpoints"),
    )
    for number, weight in enumerate(steps[1:11]):
        average = torch.lerp(average, weight, 1 - min(decay, (number + 1) / (number + 10)))
    torch.testing.assert_close(seen[1]["weight"], average)
    assert not torch.allclose(seen[1]["weight"], steps[10]), "training goes on from the weights, not the average"
