"""train-head with a head that is solved: files, the same bits, blocks, kernel, fine-tuning and ONNX with them."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tiny
from headstart.base.errors import UserError
from headstart.base.files import write_json
from headstart.base.manifest import write_manifest
from headstart.engine.device import Compute
from headstart.engine.inference import run_inference
from headstart.engine.pixels import load_pixels
from headstart.features import embeddings
from headstart.features.frozen_backbone import FrozenBackbone
from headstart.models import classifier
from headstart.models.file import read_model_file, strip_prefix
from headstart.params.root import Params
from headstart.training.lr_finder import lr_find
from tiny import train_head
from training.fine_tuned import read_history
from training.test_lr_finder import TRAININGS

BEFORE = ("fetch", "weights", "split", "augment")


def make_params(head: dict[str, Any], **changes: Any) -> Params:
    """As tiny's, but with this section `model.head`."""
    return tiny.make_params(model={"head": head}, **changes)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project before train-head; copy it."""
    root = tmp_path_factory.mktemp("prepared")
    tiny.make_pictures(root)
    tiny.run(root, make_params({}), *BEFORE)
    return root


@pytest.fixture
def root(prepared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(prepared, tmp_path / "copy")


def test_what_is_written(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = make_params({})
    train_head(params, root)
    assert "solved, not trained in epochs; no effect: train_head.epochs, lr, batch_size\n" in capsys.readouterr().out
    metrics = tiny.read_json(root / "stages/train-head/metrics.json")
    assert (metrics["best_epoch"], metrics["epochs"]) == (1, 1)
    (row,) = read_history(root / "stages/train-head/history.csv")
    assert row["val_loss"] == pytest.approx(metrics["val_loss"], rel=1e-5)
    assert row["val_accuracy"] == metrics["val_accuracy"] == 1
    first = (root / "stages/train-head/model.safetensors").read_bytes()
    train_head(params, root)
    assert (root / "stages/train-head/model.safetensors").read_bytes() == first


def test_the_gradient_of_the_training_loss_is_zero(root: Path) -> None:
    """On the pictures of augment and with the decay of metrics.json: the optimum, whatever found it."""
    params = make_params({}, train={"precision": "fp32"})
    train_head(params, root)
    tensors, spec = read_model_file(root / "stages/train-head/model.safetensors")
    train = tiny.manifest(root, "augment", "train").images
    network = classifier.build(tensors, spec)
    pixels = load_pixels(train, root, spec.input, "decode")
    features = run_inference(network.trunk, pixels, spec.input, Compute(torch.device("cpu"))).double()
    mean, std = features.mean(0), features.std(0, unbiased=False)
    std[std == 0] = 1
    weight = (tensors["head.1.weight"].double() * std).requires_grad_()
    bias = (tensors["head.1.bias"].double() + tensors["head.1.weight"].double() @ mean).requires_grad_()
    logits = (features - mean) / std @ weight.T + bias
    decay = tiny.read_json(root / "stages/train-head/metrics.json")["weight_decay"]
    targets = classifier.encode_targets(train, spec.labels)
    loss = torch.nn.functional.cross_entropy(logits, targets) + decay / 2 * weight.square().sum()
    gradients = torch.autograd.grad(loss, (weight, bias))
    assert max(gradient.abs().max().item() for gradient in gradients) < 1e-4


def test_the_annotators_confidence_is_learned(root: Path) -> None:
    """Pictures of one label are given as sure, those of the other as 0.6: the head is as unsure as they are."""
    path = root / "stages/augment/train.json"
    train = tiny.manifest(root, "augment", "train")
    unsure = [one.model_copy(update={"confidence": 0.6} if one.label == "red" else {}) for one in train.images]
    write_manifest(train.model_copy(update={"images": tuple(unsure)}), path)
    params = make_params({}, train={"precision": "fp32"})
    train_head(params, root)
    tensors, spec = read_model_file(root / "stages/train-head/model.safetensors")
    val = tiny.manifest(root, "split", "val").images
    pixels = load_pixels(val, root, spec.input, "decode")
    network = classifier.build(tensors, spec)
    logits = run_inference(network, pixels, spec.input, Compute(torch.device("cpu")))
    red = logits.softmax(1)[:, spec.labels.index("red")].numpy()
    of_red = np.array([image.label == "red" for image in val])
    assert red[of_red].mean() == pytest.approx(0.6, abs=0.12)
    assert red[~of_red].mean() < 0.15


def test_blocks_are_cached_with_the_last_features_in_one_pass(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = make_params({"features": "blocks"})
    train_head(blocks, root)
    tensors, spec = read_model_file(root / "stages/train-head/model.safetensors")
    assert spec.levels == ("blocks.1.0", "blocks.2.0", "blocks.3.0", "blocks.4.0")
    assert spec.features == tensors["head.1.weight"].shape[1] > 256
    model = (root / "stages/train-head/model.safetensors").read_bytes()

    def forbidden(*_: object, **__: object) -> None:
        pytest.fail("a picture was run again")

    monkeypatch.setattr(embeddings, "run_inference", forbidden)
    train_head(make_params({}), root)  # the last features are in the cache as well
    assert read_model_file(root / "stages/train-head/model.safetensors")[1].levels == ()
    train_head(blocks, root)
    assert (root / "stages/train-head/model.safetensors").read_bytes() == model


@pytest.mark.parametrize("head", [{"features": "blocks"}, {"kind": "kernel"}, {"kind": "kernel", "features": "blocks"}])
@pytest.mark.parametrize("cached", [False, True])
def test_fine_tuning_trains_through_the_head_and_leaves_what_is_frozen(
    root: Path, head: dict[str, str], cached: bool
) -> None:
    fine_tune = {"freeze_depth": 3, "cache_frozen": cached, "lr": 1e-3, "epochs": 8}
    params = make_params({**head, "dropout": 0}, fine_tune=fine_tune, train={"precision": "fp32"})
    tiny.run(root, params, "train-head", "fine-tune")
    before, spec = read_model_file(root / "stages/train-head/model.safetensors")
    after, _ = read_model_file(root / "stages/fine-tune/model.safetensors")
    assert tiny.read_json(root / "stages/fine-tune/metrics.json")["best_epoch"] > 0
    linear = "head.2" if spec.head.kind == "kernel" else "head.1"
    assert not torch.equal(after[f"{linear}.weight"], before[f"{linear}.weight"])
    assert not torch.equal(after["trunk.blocks.4.0.conv_pw.weight"], before["trunk.blocks.4.0.conv_pw.weight"])
    frozen = [name for name in before if name.startswith(("trunk.conv_stem", "trunk.blocks.0", "trunk.blocks.1"))]
    frozen += [name for name in before if name.startswith("head.0")]
    assert frozen
    assert all(torch.equal(after[name], before[name]) for name in frozen)


def test_cached_and_whole_networks_compute_the_same(root: Path) -> None:
    """The activations of frozen blocks hold the features of these blocks too."""
    params = make_params({"features": "blocks"}, train={"precision": "fp32"})
    train_head(params, root)
    tensors, spec = read_model_file(root / "stages/train-head/model.safetensors")
    network = classifier.build(tensors, spec)
    val = tiny.manifest(root, "split", "val").images
    compute = Compute(torch.device("cpu"))
    trunk = strip_prefix("trunk.", tensors)
    backbone = FrozenBackbone.of(lambda: network.trunk, trunk, spec, compute, root)
    of_depth = embeddings.compute_embeddings(val, backbone, 4, "blocks")
    pixels = load_pixels(val, root, spec.input, "decode")
    whole = run_inference(network, pixels, spec.input, compute)
    with torch.no_grad():
        torch.testing.assert_close(network.head(of_depth), whole, atol=1e-3, rtol=1e-3)


def test_a_backbone_without_feature_maps(root: Path) -> None:
    facts = tiny.read_json(root / "stages/weights/weights.json")
    write_json(root / "stages/weights/weights.json", facts | {"block_levels": [], "block_features": 0})
    with pytest.raises(UserError, match=r"^params\.yaml: model\.head\.features: blocks: timm .* give last"):
        train_head(make_params({"features": "blocks"}), root)


@pytest.mark.parametrize("kind", ["linear", "kernel"])
def test_there_is_no_learning_rate_to_find(root: Path, kind: str) -> None:
    with pytest.raises(
        UserError, match=rf"^params\.yaml: model\.head\.kind: {kind}: this head is solved, at no learning"
    ):
        lr_find("train-head", make_params({"kind": kind}), root, root, TRAININGS["classify"])


@pytest.mark.parametrize("head", [{"features": "blocks"}, {"kind": "kernel", "features": "blocks"}])
def test_the_exported_model_computes_the_same(root: Path, head: dict[str, str]) -> None:
    params = make_params(head, fine_tune={"epochs": 1, "freeze_depth": -1, "layer_decay": 1})
    tiny.run(root, params, "train-head", "fine-tune", "evaluate", "export")
    parity = tiny.read_json(root / "stages/export/parity.json")
    assert parity["same_label"] + parity["ties"] == parity["pictures"]
    assert parity["largest_logit_difference"] < 1e-3
    assert load_file(root / "stages/fine-tune/model.safetensors")
