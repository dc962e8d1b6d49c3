"""torchvision's complete detectors by name: taken apart they are what torchvision has, and they go all the way."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.faster_rcnn import FasterRCNN

import test_detect
import tiny
from headstart import box_export, detect, fasterrcnn, modelfile, whole
from headstart.errors import UserError
from headstart.fasterrcnn import FasterRcnn
from headstart.modelfile import Card
from headstart.params import WHOLE, ExportParams
from headstart.predict import Boxes
from headstart.weights import weights

SIZES = {"ssd300_vgg16": 300, "fasterrcnn_mobilenet_v3_large_320_fpn": 224}  # the others take small ones
LITE = "ssdlite320_mobilenet_v3_large"
MOST = 10**6


def card(name: str, size: int = 96) -> Card:
    return test_detect.card(name, "", size).model_copy(update={"pyramid": 0})


def torchvisions(detector: str, size: int) -> Any:
    """torchvision's own model for three labels, its limits ours, shown tensors as they are."""
    torch.manual_seed(0)
    model: Any = whole.make(detector, 3)
    model.transform.image_mean, model.transform.image_std = [0.0] * 3, [1.0] * 3
    model.transform.fixed_size = (size, size)
    if isinstance(model, FasterRCNN):
        model.rpn._pre_nms_top_n = dict.fromkeys(("training", "testing"), fasterrcnn.BEFORE)
        model.rpn._post_nms_top_n = {"training": fasterrcnn.TAUGHT, "testing": fasterrcnn.GIVEN}
        model.rpn.score_thresh = 0.0
        model.rpn.fg_bg_sampler = model.roi_heads.fg_bg_sampler = BalancedPositiveNegativeSampler(MOST, 0.5)
        model.roi_heads.score_thresh = detect.LEAST
    else:
        model.score_thresh, model.detections_per_img, model.topk_candidates = detect.LEAST, 100, 1000
    pictures = torch.randn(2, 3, size, size)
    with torch.no_grad():
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for module in norms:
            module.reset_running_stats()
            module.momentum = None  # the mean of what is seen, so that a deep untrained trunk's maps do not fade away
        model.train().backbone(pictures)
        for module in norms:
            module.eval()
    return _spread(model, pictures)


_SAYS = re.compile(r"(cls_logits|cls_score|bbox_pred|module_list\.\d+(\.1)?)$")


@torch.no_grad()
def _spread(model: Any, pictures: Tensor) -> Any:
    """Untrained it is sure of nothing and of all places equally, and which of equal boxes is kept is chance."""
    seen: set[str] = set()

    def scale(name: str) -> Callable[[Any, Any, Tensor], None]:
        def scaled(layer: Any, _: Any, said: Tensor) -> None:
            if name not in seen:
                seen.add(name)
                rows = said.ndim == 2  # of proposals: they are to differ, not the labels
                share = 0.2 if "bbox" in name or "regression" in name else 1.0
                share = share / float(said.std(0).mean() if rows else said.std())
                layer.weight.mul_(share)
                layer.bias.copy_(-share * (said.mean(0) - layer.bias) if rows else torch.zeros_like(layer.bias))
                if name.startswith("head.classification_head.cls"):
                    layer.bias.fill_(-1.0)

        return scaled

    layers = [(name, layer) for name, layer in model.named_modules() if _SAYS.search(name) and hasattr(layer, "weight")]
    handles = [layer.register_forward_hook(scale(name)) for name, layer in layers]
    for _ in range(1 + isinstance(model, FasterRCNN)):  # its second stage sees what its first proposes
        model.eval()(list(pictures))
        seen -= {name for name in seen if "box_predictor" in name}
    for handle in handles:
        handle.remove()
    return model


@pytest.mark.parametrize("name", WHOLE)
def test_loss_and_boxes_are_torchvisions(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours is made of the very modules of theirs."""
    for limit, value in (("ANCHORS", MOST), ("BOXES", MOST), ("BOX_SHARE", 0.5)):
        monkeypatch.setattr(fasterrcnn, limit, value)
    size = SIZES.get(name, 96)
    theirs = torchvisions(name, size)
    with monkeypatch.context() as patch:
        patch.setattr(whole, "make", lambda *_: theirs)
        network = detect.start({}, card(name, size))
    pictures, targets = torch.randn(2, 3, size, size), test_detect.random_targets((3, 0))
    first = int(isinstance(network.head, FasterRcnn) or "ssd" in name)  # theirs is then: nothing
    shown = [{"labels": target[:, 0].long() + first, "boxes": target[:, 1:]} for target in targets]
    theirs.train()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    with torch.no_grad():
        losses = theirs(list(pictures), shown)
        network.eval()
        found = detect.loss(network, network(pictures, detect.padded(targets)), detect.padded(targets))
        torch.testing.assert_close(found, sum(losses.values(), torch.zeros(())), rtol=1e-4, atol=1e-5)
        given = theirs.eval()(list(pictures))
        boxes, scores, labels = detect.predict(network, network(pictures))
    for number, wanted in enumerate(given):
        count = len(wanted["scores"])
        assert count > 20
        torch.testing.assert_close(scores[number, :count], wanted["scores"], rtol=1e-4, atol=1e-5)
        assert (scores[number, count:] == 0).all()
        near = torch.isclose(wanted["boxes"][:, None], boxes[number], rtol=1e-3, atol=1e-2).all(-1)
        near &= torch.isclose(wanted["scores"][:, None], scores[number], rtol=1e-4, atol=1e-5)
        near &= wanted["labels"][:, None] - first == labels[number]
        assert near.any(1).all(), "boxes of one score may change places"


def test_an_exported_one_of_two_stages_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    theirs = torchvisions(name, SIZES[name])
    monkeypatch.setattr(whole, "make", lambda *_: theirs)
    own = card(name, SIZES[name])
    tensors = {n: tensor.detach().clone() for n, tensor in detect.start({}, own).state_dict().items()}
    seen = np.random.default_rng(0).integers(0, 256, (2, SIZES[name], SIZES[name], 3), np.uint8)
    expected, overlap = box_export.write(tmp_path, tensors, own, seen)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    found = Boxes(*session.run(Boxes._fields, {"pixels": seen}))
    about = box_export.parity(tmp_path, found, expected, 0.05, overlap, ExportParams(tolerance=1e-3))
    assert about["same_box"] == about["boxes"] > 100


@pytest.mark.parametrize(
    ("name", "names"),
    [
        (LITE, ["layers.0.0", "layers.0.1.block", "layers.1.3", 18]),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", ["layers.0", "layers.1.block", "layers.16", 17]),
        ("fcos_resnet50_fpn", ["layers", "layers.layer1.0", "layers.layer4.2", 17]),
    ],
)
def test_blocks_are_those_of_the_backbone(name: str, names: list[str | int]) -> None:
    network = detect.start({}, card(name))
    blocks, idle = detect.blocks(network)
    assert [blocks[0].name, blocks[1].name, blocks[-1].name, len(blocks)] == names
    assert not idle
    assert {each for block in blocks for each in block.parameters} == set(dict(network.trunk.named_parameters()))


def bring(root: Path, source: str, name: str = LITE) -> dict[str, Any]:
    weights(tiny.make_detect_params(model={"detector": name, "backbone": "", "weights": source}), root)
    about: dict[str, Any] = tiny.read_json(root / "stages/weights/weights.json")
    return about


def test_a_file_of_torchvisions_is_kept_but_for_its_predictor(tmp_path: Path) -> None:
    """Such a file is of 91 labels, and frozen batch norms do not count."""
    torch.manual_seed(5)
    tensors = {n: t for n, t in whole.make(LITE, 90).state_dict().items() if "num_batches_tracked" not in n}
    save_file(tensors, tmp_path / "coco.safetensors")
    about = bring(tmp_path, "coco.safetensors")
    assert (about["name"], about["source"]) == (LITE, "coco.safetensors")
    assert about["input"]["mean"] == [0.5] * 3
    found = load_file(tmp_path / "stages/weights/pretrained.safetensors")
    left = {n for n in tensors if n not in found}
    assert left == {
        f"head.classification_head.module_list.{n}.1.{kind}" for n in range(6) for kind in ("weight", "bias")
    }
    assert all(torch.equal(found[n], tensors[n]) for n in tensors if n not in left)
    network = detect.start(found, card(LITE))
    assert torch.equal(network.trunk.state_dict()["layers.0.0.0.weight"], tensors["backbone.features.0.0.0.weight"])
    theirs = tensors["head.regression_head.module_list.2.1.bias"]
    assert torch.equal(network.head.state_dict()["layers.regression_head.module_list.2.1.bias"], theirs)


@pytest.mark.parametrize("error", [OSError("no route"), RuntimeError("invalid hash value\nsecond line")])
def test_a_hub_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", failing)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", failing)
    with pytest.raises(UserError) as caught:
        bring(tmp_path, "hub")
    line = f"params.yaml: model.weights: 'hub': {LITE} cannot be downloaded ({str(error).partition(chr(10))[0]}); "
    assert str(caught.value).startswith(line)


def test_what_arrives_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = whole.make(LITE, 90).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: tensors)
    about = bring(tmp_path, "hub")
    assert about["source"] == (
        "https://download.pytorch.org/models/ssdlite320_mobilenet_v3_large_coco-a79551df.pth (COCO)"
    )
    found = load_file(tmp_path / "stages/weights/pretrained.safetensors")
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in found.items())


def test_a_size_that_it_does_not_take() -> None:
    with pytest.raises(UserError, match=r"model\.image_size: 96: ssd300_vgg16 does not take pictures of that size"):
        detect.start({}, card("ssd300_vgg16"))


def test_nothing_is_bundled(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"only tf_efficientnet_lite0 is bundled, not {LITE}; set model.weights to hub"):
        bring(tmp_path, "bundled")


def test_it_goes_all_the_way(tmp_path: Path) -> None:
    """An epoch each; what is frozen stays, the predictor is new, and the exported file finds what was examined.

    Of two stages see above and test_fasterrcnn: untrained, a whole one proposes boxes that are equally sure, and which
    of those stays is chance.
    """
    name = LITE
    tiny.make_boxes(tmp_path)
    params = tiny.make_detect_params(
        model={"detector": name, "backbone": "", "image_size": 64},
        train_head={"epochs": 1, "batch_size": 8},
        fine_tune={"epochs": 1, "batch_size": 8, "freeze_depth": 12},
        augment={"copies": 0},
    )
    tiny.run(tmp_path, params)
    parity = tiny.read_json(tmp_path / "stages/export/parity.json")
    assert parity["same_box"] == parity["boxes"]
    blocks = tiny.read_json(tmp_path / "stages/fine-tune/blocks.json")
    assert sum(block["state"] == "frozen" for block in blocks) == 12
    pretrained = load_file(tmp_path / "stages/weights/pretrained.safetensors")
    tensors, own = modelfile.read(tmp_path / "stages/fine-tune/model.safetensors")
    assert (own.detector, own.backbone, own.pyramid) == (name, "", 0)
    below = {"backbone.body.": "trunk.layers.", "backbone.features.": "trunk.layers."}
    for before, after in below.items():
        for theirs in ("0.0", "0.0.0"):
            if f"{before}{theirs}.weight" in pretrained:
                assert torch.equal(tensors[f"{after}{theirs}.weight"], pretrained[f"{before}{theirs}.weight"])
    page = (tmp_path / "stages/evaluate/report.html").read_text(encoding="utf-8")
    assert f"{name}, with a new predictor" in page
    card = (tmp_path / "stages/export/model_card.md").read_text(encoding="utf-8")
    assert f"{name}, with a new predictor |" in card
