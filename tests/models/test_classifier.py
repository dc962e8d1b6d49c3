"""The task `classify`: head, targets, class weights, loss, probabilities, validation metrics."""

import pytest
import torch
from torch import nn

import tiny
from headstart.base.manifest import Image
from headstart.engine.input_spec import InputSpec
from headstart.models import classifier
from headstart.models.backbone import create_backbone
from headstart.models.file import ModelSpec
from headstart.models.kernel_features import KernelFeatures
from headstart.params.root import HeadParams
from headstart.params.training import TrainingStageParams


def layer_types(**head: object) -> list[str]:
    return [type(layer).__name__ for layer in classifier.create_head(10, 3, HeadParams.model_validate(head))]


def test_heads() -> None:
    assert layer_types() == ["Dropout", "Linear"]
    assert layer_types(hidden=[8]) == ["Linear", "ReLU", "Dropout", "Linear"]
    assert layer_types(hidden=[8], batch_norm=True) == ["Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear"]
    deep = classifier.create_head(10, 3, HeadParams(hidden=(8, 6, 4), dropout=0.3))
    widths = [(layer.in_features, layer.out_features) for layer in deep if isinstance(layer, nn.Linear)]
    assert widths == [(10, 8), (8, 6), (6, 4), (4, 3)]
    assert [layer.p for layer in deep if isinstance(layer, nn.Dropout)] == [0.3] * 3
    assert deep(torch.zeros(2, 10)).shape == (2, 3)


def test_a_network_is_built_from_its_spec() -> None:
    spec = ModelSpec(
        task="classify",
        backbone=tiny.TRUNK,
        labels=("a", "b", "c"),
        features=256,
        head=HeadParams(hidden=(4,)),
        input=InputSpec(size=32, resize="crop", interpolation="bicubic", crop=1, mean=(0, 0, 0), std=(1, 1, 1)),
    )
    original = classifier.Classifier(create_backbone(tiny.TRUNK), classifier.create_head(256, 3, spec.head)).eval()
    built = classifier.build(original.state_dict(), spec)
    pictures = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(built(pictures), original(pictures))
    assert not built.training


def image(label: str) -> Image:
    return Image(id=1, file_name="x", width=1, height=1, sha256="x", source="s", label=label)


def test_targets_are_indices_into_the_labels() -> None:
    assert classifier.encode_targets([image("b"), image("c"), image("a"), image("b")], ["a", "b", "c"]).tolist() == [
        1,
        2,
        0,
        1,
    ]
    with pytest.raises(KeyError):
        classifier.encode_targets([image("d")], ["a"])


def test_balanced_weights_give_each_label_the_same_total_weight() -> None:
    targets = torch.tensor([0] * 6 + [1] * 2)
    balanced = TrainingStageParams(epochs=1, lr=1, class_weights="balanced")
    weights = classifier.class_weights(targets, 2, balanced)
    assert weights is not None
    assert weights.tolist() == pytest.approx([8 / 12, 8 / 4])
    assert weights[targets].mean() == pytest.approx(1)
    assert weights[0] * 6 == pytest.approx(float(weights[1] * 2))
    assert classifier.class_weights(targets, 2, TrainingStageParams(epochs=1, lr=1)) is None
    absent = classifier.class_weights(targets, 3, balanced)
    assert absent is not None
    assert absent.isfinite().all()


def test_the_loss_is_cross_entropy() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    targets = torch.tensor([0, 0])
    each = -logits.log_softmax(1)[:, 0]
    assert classifier.loss(logits, targets, None, 0) == pytest.approx(each.mean().item())
    smooth = 0.9 * each.mean() - 0.1 * logits.log_softmax(1).mean()
    assert classifier.loss(logits, targets, None, 0.1) == pytest.approx(smooth.item())
    weighted = classifier.loss(logits, torch.tensor([0, 1]), torch.tensor([3.0, 1.0]), 0)
    assert weighted == pytest.approx((3 * each[0] - logits.log_softmax(1)[1, 1]).item() / 4)


def test_the_loss_of_half_precision_logits_is_taken_in_fp32() -> None:
    logits = torch.randn(64, 5).bfloat16()
    targets = torch.arange(64) % 5
    loss = classifier.loss(logits, targets, None, 0.1)
    assert loss.dtype == torch.float32
    assert loss == classifier.loss(logits.float(), targets, None, 0.1)


def test_probabilities_and_their_temperature() -> None:
    logits = torch.tensor([[2.0, 0.0]])
    assert classifier.predict(logits).sum() == pytest.approx(1)
    assert classifier.predict(logits)[0, 0] == pytest.approx(1 / (1 + torch.tensor(-2.0).exp().item()))
    assert torch.equal(classifier.predict(logits, 2.0), classifier.predict(logits / 2))


def test_validation_metrics() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 1.0]])
    targets = torch.tensor([0, 1, 1, 1])
    metrics = classifier.compute_val_metrics(logits, targets)
    assert metrics["val_accuracy"] == 0.75
    assert metrics["val_loss"] == pytest.approx(classifier.loss(logits, targets, None, 0).item())
    weighted = classifier.compute_val_metrics(logits, targets, torch.tensor([3.0, 1.0]))
    losses = torch.stack([classifier.loss(logits[[n]], targets[[n]], None, 0) for n in range(4)])
    assert weighted["val_loss"] == pytest.approx((3 * losses[0] + losses[1:].sum()).item() / 6)
    assert weighted["val_accuracy"] == 0.75


def test_soft_targets_spread_what_the_annotator_is_not_sure_of() -> None:
    sure, unsure = image("a"), image("b").model_copy(update={"confidence": 0.6})
    targets = classifier.soft_targets([sure, unsure], ["a", "b", "c"])
    assert targets.tolist() == [[1, 0, 0], pytest.approx([0.2, 0.6, 0.2])]
    smooth = classifier.soft_targets([sure, unsure], ["a", "b", "c"], 0.3)
    assert smooth[0].tolist() == pytest.approx([0.8, 0.1, 0.1])
    assert smooth[1].tolist() == pytest.approx([0.24, 0.52, 0.24])
    assert classifier.soft_targets([unsure], ["b"]).tolist() == [[1]]
    assert classifier.training_targets([sure], ["a", "b"]).tolist() == [0]
    learned = classifier.training_targets([sure, unsure], ["a", "b"])
    torch.testing.assert_close(learned, torch.tensor([[1, 0], [0.4, 0.6]]))


def test_a_head_on_blocks_and_a_kernel_head_are_built_from_their_spec() -> None:
    kernel = KernelFeatures(592, 5, 7, 4)
    for name in ("projection", "offset", "landmarks", "whitening"):
        torch.nn.init.normal_(kernel.get_buffer(name), std=0.1)
    params = HeadParams(kind="kernel", features="blocks")
    head = classifier.create_head(592, 3, params, kernel)
    spec = ModelSpec(
        task="classify",
        backbone=tiny.TRUNK,
        labels=("a", "b", "c"),
        features=592,
        head=params,
        levels=("blocks.1.0", "blocks.2.0", "blocks.3.0", "blocks.4.0"),
        input=InputSpec(size=32, resize="crop", interpolation="bicubic", crop=1, mean=(0, 0, 0), std=(1, 1, 1)),
    )
    original = classifier.Classifier(create_backbone(tiny.TRUNK), head, spec.levels).eval()
    built = classifier.build(original.state_dict(), spec)
    pictures = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(built(pictures), original(pictures))
        assert torch.equal(built(pictures), head(built.embed(pictures)))
        torch.testing.assert_close(built.embed(pictures)[:, :256], built.trunk(pictures))
