"""The task `classify`: head, targets, weights, loss, probabilities and scores."""

import pytest
import torch
from torch import nn

import tiny
from headstart import classify
from headstart.coco import Image
from headstart.modelfile import Card
from headstart.params import FitParams, HeadParams
from headstart.pixels import Input


def kinds(**head: object) -> list[str]:
    return [type(layer).__name__ for layer in classify.make_head(10, 3, HeadParams.model_validate(head))]


def test_heads() -> None:
    assert kinds() == ["Dropout", "Linear"]
    assert kinds(hidden=[8]) == ["Linear", "ReLU", "Dropout", "Linear"]
    assert kinds(hidden=[8], batch_norm=True) == ["Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear"]
    deep = classify.make_head(10, 3, HeadParams(hidden=(8, 6, 4), dropout=0.3))
    widths = [(layer.in_features, layer.out_features) for layer in deep if isinstance(layer, nn.Linear)]
    assert widths == [(10, 8), (8, 6), (6, 4), (4, 3)]
    assert [layer.p for layer in deep if isinstance(layer, nn.Dropout)] == [0.3] * 3
    assert deep(torch.zeros(2, 10)).shape == (2, 3)


def test_a_network_is_built_from_its_card() -> None:
    card = Card(
        task="classify",
        backbone=tiny.TRUNK,
        labels=("a", "b", "c"),
        features=256,
        head=HeadParams(hidden=(4,)),
        input=Input(size=32, resize="crop", interpolation="bicubic", crop=1, mean=(0, 0, 0), std=(1, 1, 1)),
    )
    made = classify.Classifier(classify_trunk(), classify.make_head(256, 3, card.head)).eval()
    built = classify.build(made.state_dict(), card)
    pictures = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(built(pictures), made(pictures))
    assert not built.training


def classify_trunk() -> nn.Module:
    from headstart.weights import trunk

    return trunk(tiny.TRUNK)


def image(label: str) -> Image:
    return Image(id=1, file_name="x", width=1, height=1, sha256="x", source="s", label=label)


def test_targets_are_places_in_the_list_of_labels() -> None:
    assert classify.targets([image("b"), image("c"), image("a"), image("b")], ["a", "b", "c"]).tolist() == [1, 2, 0, 1]
    with pytest.raises(KeyError):
        classify.targets([image("d")], ["a"])


def test_balanced_weights_give_each_label_the_same_say() -> None:
    targets = torch.tensor([0] * 6 + [1] * 2)
    balanced = FitParams(epochs=1, lr=1, class_weights="balanced")
    weights = classify.class_weights(targets, 2, balanced)
    assert weights is not None
    assert weights.tolist() == pytest.approx([8 / 12, 8 / 4])
    assert weights[targets].mean() == pytest.approx(1)
    assert weights[0] * 6 == pytest.approx(float(weights[1] * 2))
    assert classify.class_weights(targets, 2, FitParams(epochs=1, lr=1)) is None
    absent = classify.class_weights(targets, 3, balanced)
    assert absent is not None
    assert absent.isfinite().all()


def test_the_loss_is_cross_entropy() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    targets = torch.tensor([0, 0])
    each = -logits.log_softmax(1)[:, 0]
    assert classify.loss(logits, targets, None, 0) == pytest.approx(each.mean().item())
    smooth = 0.9 * each.mean() - 0.1 * logits.log_softmax(1).mean()
    assert classify.loss(logits, targets, None, 0.1) == pytest.approx(smooth.item())
    weighted = classify.loss(logits, torch.tensor([0, 1]), torch.tensor([3.0, 1.0]), 0)
    assert weighted == pytest.approx((3 * each[0] - logits.log_softmax(1)[1, 1]).item() / 4)


def test_the_loss_of_half_precision_logits_is_taken_in_fp32() -> None:
    logits = torch.randn(64, 5).bfloat16()
    targets = torch.arange(64) % 5
    found = classify.loss(logits, targets, None, 0.1)
    assert found.dtype == torch.float32
    assert found == classify.loss(logits.float(), targets, None, 0.1)


def test_probabilities_and_their_temperature() -> None:
    logits = torch.tensor([[2.0, 0.0]])
    assert classify.predict(logits).sum() == pytest.approx(1)
    assert classify.predict(logits)[0, 0] == pytest.approx(1 / (1 + torch.tensor(-2.0).exp().item()))
    assert torch.equal(classify.predict(logits, 2.0), classify.predict(logits / 2))


def test_scores() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 1.0]])
    scores = classify.score(logits, torch.tensor([0, 1, 1, 1]))
    assert scores["val_accuracy"] == 0.75
    wanted = classify.loss(logits, torch.tensor([0, 1, 1, 1]), None, 0).item()
    assert scores["val_loss"] == pytest.approx(wanted)
