"""torchvision's complete detectors by name: split into parts they compute what torchvision computes; the pipeline."""

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image as Pillow
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.ops import box_iou

import tiny
from headstart.base.errors import UserError
from headstart.engine.device import configure_torch
from headstart.engine.inference import run_inference
from headstart.engine.input_spec import ImageSize, to_shape
from headstart.engine.pixels import load_pixels
from headstart.export.onnx_detector import check_detector_parity, write_detector_model
from headstart.export.predictor import DetectorOutput
from headstart.metrics.coco_matching import match_detections
from headstart.models import detector, torchvision_detectors
from headstart.models.file import ModelSpec, read_model_file
from headstart.models.heads import fasterrcnn
from headstart.models.heads.fasterrcnn import FasterRcnnDetectionHead
from headstart.models.pretrained import load_pretrained
from headstart.models.weights import weights
from headstart.params.root import TORCHVISION_DETECTORS, ExportParams
from models import test_detector

SIZES = {"ssd300_vgg16": 300, "fasterrcnn_mobilenet_v3_large_320_fpn": 224}  # the others work on 96 pixels
LITE = "ssdlite320_mobilenet_v3_large"
ALL = 10**6  # more than there are anchors or proposals


def make_spec(name: str, size: ImageSize = 96) -> ModelSpec:
    return test_detector.make_spec(name, "", size).model_copy(update={"pyramid": 0})


def torchvision_detector(name: str, size: ImageSize) -> Any:
    """torchvision's own model for three labels with our limits, which takes tensors as they are."""
    torch.manual_seed(0)
    model: Any = torchvision_detectors.create_detector(name, 3)
    model.transform.image_mean, model.transform.image_std = [0.0] * 3, [1.0] * 3
    height, width = to_shape(size)
    model.transform.fixed_size = (width, height)
    if isinstance(model, FasterRCNN):
        model.rpn._pre_nms_top_n = dict.fromkeys(("training", "testing"), fasterrcnn.RPN_PRE_NMS_TOP_N)
        model.rpn._post_nms_top_n = {
            "training": fasterrcnn.RPN_POST_NMS_TOP_N_TRAIN,
            "testing": fasterrcnn.RPN_POST_NMS_TOP_N_TEST,
        }
        model.rpn.score_thresh = 0.0
        model.rpn.fg_bg_sampler = model.roi_heads.fg_bg_sampler = BalancedPositiveNegativeSampler(ALL, 0.5)
        model.roi_heads.score_thresh = detector.MIN_SCORE
    else:
        model.score_thresh, model.detections_per_img, model.topk_candidates = detector.MIN_SCORE, 100, 1000
    pictures = torch.randn(2, 3, height, width)
    with torch.no_grad():
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for module in norms:
            module.reset_running_stats()
            module.momentum = (
                None  # cumulative mean, so that the feature maps of a deep untrained backbone do not vanish
            )
        model.train().backbone(pictures)
        for module in norms:
            module.eval()
    return _spread_scores(model, pictures)


_OUTPUT_LAYERS = re.compile(r"(cls_logits|cls_score|bbox_pred|module_list\.\d+(\.1)?)$")


@torch.no_grad()
def _spread_scores(model: Any, pictures: Tensor) -> Any:
    """Scale the output layers: untrained, all scores are nearly equal, and which of equal boxes NMS keeps is chance."""
    scaled_layers: set[str] = set()

    def scale(name: str) -> Callable[[Any, Any, Tensor], None]:
        def hook(layer: Any, _: Any, outputs: Tensor) -> None:
            if name not in scaled_layers:
                scaled_layers.add(name)
                rows = outputs.ndim == 2  # of proposals: they are to differ, not the labels
                share = 0.2 if "bbox" in name or "regression" in name else 1.0
                share = share / float(outputs.std(0).mean() if rows else outputs.std())
                layer.weight.mul_(share)
                layer.bias.copy_(-share * (outputs.mean(0) - layer.bias) if rows else torch.zeros_like(layer.bias))
                if name.startswith("head.classification_head.cls"):
                    layer.bias.fill_(-1.0)

        return hook

    layers = [
        (name, layer)
        for name, layer in model.named_modules()
        if _OUTPUT_LAYERS.search(name) and hasattr(layer, "weight")
    ]
    handles = [layer.register_forward_hook(scale(name)) for name, layer in layers]
    for _ in range(1 + isinstance(model, FasterRCNN)):  # the second stage takes the proposals of the first
        model.eval()(list(pictures))
        scaled_layers -= {name for name in scaled_layers if "box_predictor" in name}
    for handle in handles:
        handle.remove()
    return model


@pytest.mark.parametrize(
    ("name", "size"), [*((name, SIZES.get(name, 96)) for name in TORCHVISION_DETECTORS), (LITE, (96, 160))]
)
def test_loss_and_boxes_are_torchvisions(name: str, size: ImageSize, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours consists of the modules of torchvision's model."""
    for limit, value in (("RPN_BATCH_PER_IMAGE", ALL), ("BOX_BATCH_PER_IMAGE", ALL), ("BOX_POSITIVE_FRACTION", 0.5)):
        monkeypatch.setattr(fasterrcnn, limit, value)
    reference = torchvision_detector(name, size)
    with monkeypatch.context() as patch:
        patch.setattr(torchvision_detectors, "create_detector", lambda *_: reference)
        network = detector.build_from_pretrained({}, make_spec(name, size))
    pictures, targets = torch.randn(2, 3, *to_shape(size)), test_detector.random_targets((3, 0))
    first = int(isinstance(network.head, FasterRcnnDetectionHead) or "ssd" in name)  # label 0 is then background
    reference_targets = [{"labels": target[:, 0].long() + first, "boxes": target[:, 1:]} for target in targets]
    reference.train()
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    with torch.no_grad():
        losses = reference(list(pictures), reference_targets)
        network.eval()
        padded = detector.pad_targets(targets)
        loss = detector.loss(network, network(pictures, padded), padded)
        torch.testing.assert_close(loss, sum(losses.values(), torch.zeros(())), rtol=1e-4, atol=1e-5)
        predictions = reference.eval()(list(pictures))
        boxes, scores, labels = detector.predict(network, network(pictures))
    for number, expected in enumerate(predictions):
        count = len(expected["scores"])
        assert count > 20
        torch.testing.assert_close(scores[number, :count], expected["scores"], rtol=1e-4, atol=1e-5)
        assert (scores[number, count:] == 0).all()
        near = torch.isclose(expected["boxes"][:, None], boxes[number], rtol=1e-3, atol=1e-2).all(-1)
        near &= torch.isclose(expected["scores"][:, None], scores[number], rtol=1e-4, atol=1e-5)
        near &= expected["labels"][:, None] - first == labels[number]
        assert near.any(1).all(), "boxes of equal score may be in another order"


@pytest.mark.parametrize("across_labels", [False, True])
def test_an_exported_faster_rcnn_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, across_labels: bool
) -> None:
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    reference = torchvision_detector(name, SIZES[name])
    monkeypatch.setattr(torchvision_detectors, "create_detector", lambda *_: reference)
    spec = make_spec(name, SIZES[name])
    network = detector.build_from_pretrained({}, spec)
    tensors = {n: tensor.detach().clone() for n, tensor in network.state_dict().items()}
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZES[name], SIZES[name], 3), np.uint8)
    expected, overlap = write_detector_model(tmp_path, tensors, spec, pixels, class_agnostic_nms=across_labels)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    found = DetectorOutput(*session.run(DetectorOutput._fields, {"pixels": pixels}))
    facts = check_detector_parity(
        tmp_path, found, expected, 0.05, overlap, ExportParams(tolerance=1e-3), class_agnostic_nms=across_labels
    )
    assert facts["same_box"] == facts["boxes"] > 100
    boxes = torch.from_numpy(found.boxes[0][found.scores[0] > 0])
    most = box_iou(boxes, boxes).fill_diagonal_(0).max()
    assert (most <= overlap + 1e-5) == across_labels


@pytest.mark.parametrize(
    ("name", "names"),
    [
        (LITE, ["layers.0.0", "layers.0.1.block", "layers.1.3", 18]),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", ["layers.0", "layers.1.block", "layers.16", 17]),
        ("fcos_resnet50_fpn", ["layers", "layers.layer1.0", "layers.layer4.2", 17]),
    ],
)
def test_blocks_are_those_of_the_backbone(name: str, names: list[str | int]) -> None:
    network = detector.build_from_pretrained({}, make_spec(name))
    blocks, unused = detector.blocks_and_unused_parameters(network)
    assert [blocks[0].name, blocks[1].name, blocks[-1].name, len(blocks)] == names
    assert not unused
    assert {each for block in blocks for each in block.parameters} == set(dict(network.trunk.named_parameters()))


def run_weights(root: Path, source: str, name: str = LITE) -> dict[str, Any]:
    weights(tiny.make_detect_params(model={"detector": name, "backbone": "", "pyramid": 256, "weights": source}), root)
    facts: dict[str, Any] = tiny.read_json(root / "stages/weights/weights.json")
    return facts


def test_a_file_of_torchvisions_is_loaded(tmp_path: Path) -> None:
    """Such a file is for COCO's labels, and frozen batch norms have no num_batches_tracked."""
    torch.manual_seed(5)
    tensors = {
        n: t
        for n, t in torchvision_detectors.create_detector(LITE, 90).state_dict().items()
        if "num_batches_tracked" not in n
    }
    save_file(tensors, tmp_path / "coco.safetensors")
    facts = run_weights(tmp_path, "coco.safetensors")
    assert (facts["name"], facts["source"]) == (LITE, "coco.safetensors")
    assert facts["input"]["mean"] == [0.5] * 3
    found = load_file(tmp_path / "stages/weights/pretrained.safetensors")
    assert all(torch.equal(found[n], tensors[n]) for n in tensors)
    network = detector.build_from_pretrained(found, make_spec(LITE))
    assert torch.equal(network.trunk.state_dict()["layers.0.0.0.weight"], tensors["backbone.features.0.0.0.weight"])
    bias = tensors["head.regression_head.module_list.2.1.bias"]
    assert torch.equal(network.head.state_dict()["layers.regression_head.module_list.2.1.bias"], bias)


def test_a_predictor_of_other_labels_than_cocos_is_left_out(tmp_path: Path) -> None:
    """Nobody knows whose rows those are."""
    tensors = torchvision_detectors.create_detector(LITE, 7).state_dict()
    save_file(tensors, tmp_path / "mine.safetensors")
    run_weights(tmp_path, "mine.safetensors")
    found = load_file(tmp_path / "stages/weights/pretrained.safetensors")
    assert {n for n in tensors if n not in found} == {
        f"head.classification_head.module_list.{n}.1.{kind}" for n in range(6) for kind in ("weight", "bias")
    }


@pytest.mark.parametrize("name", TORCHVISION_DETECTORS)
def test_a_label_of_cocos_keeps_its_rows(name: str) -> None:
    """Scores of two labels that COCO has, and of the background, are those of the COCO model at every place."""
    size = SIZES.get(name, 96)
    labels = ("Dining_Table", "widget", "cat", "N/A")
    assert torchvision_detectors.shared_labels(name, labels) == ["Dining_Table", "cat"]
    torch.manual_seed(7)
    coco = torchvision_detectors.create_detector(name, len(torchvision_detectors.coco_labels(name)))
    spec = make_spec(name, size)
    both = [
        detector.build_from_pretrained(coco.state_dict(), spec.model_copy(update={"labels": chosen}))
        for chosen in (tuple(torchvision_detectors.coco_labels(name)), labels)
    ]
    heads = [network.head for network in both]
    first = 0 if name.startswith(("fcos", "retinanet")) else 1
    rows = [torchvision_detectors.coco_labels(name).index(label) + first for label in ("dining table", "cat")]
    background = list(range(first))
    if isinstance(heads[0], FasterRcnnDetectionHead):
        crops = torch.rand(5, heads[0].predictor.cls_score.in_features)
        (scores, boxes), (new_scores, new_boxes) = (head.get_submodule("predictor")(crops) for head in heads)
        boxes, new_boxes = boxes.unflatten(1, (-1, 4)), new_boxes.unflatten(1, (-1, 4))
        assert torch.equal(new_boxes[:, [1, 3]], boxes[:, rows])
        known = [n for n, label in enumerate(torchvision_detectors.coco_labels(name), 1) if label != "N/A"]
        torch.testing.assert_close(new_boxes[:, 2], boxes[:, known].mean(1))
    else:
        with torch.no_grad():
            maps = both[0].pyramid_features(torch.randn(1, 3, size, size))
            scores, new_scores = (head(maps)[0][:, : -(5 if name.startswith("fcos") else 4)] for head in heads)
    torch.testing.assert_close(new_scores[:, [*background, first, first + 2]], scores[:, [*background, *rows]])
    assert not torch.equal(new_scores[:, first + 1], scores[:, rows[0]]), "widget has rows of its own"


def train_stand_in(root: Path, steps: int) -> Any:
    """In place of COCO's weights: some steps on the red and blue squares of `tiny.make_boxes`, as `cat` and `dog`."""
    torch.manual_seed(0)
    labels = torchvision_detectors.coco_labels(LITE)
    model: Any = torchvision_detectors.create_detector(LITE, len(labels)).train()
    model.transform.fixed_size = (96, 96)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.2  # few steps
    content = tiny.read_json(root / "data/boxes.json")
    pictures, targets = [], []
    for image in content["images"]:
        pixels = np.array(Pillow.open(root / "data/images" / image["file_name"]).resize((96, 96)))
        pictures.append(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
        own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        boxes = torch.tensor([a["bbox"] for a in own]).reshape(-1, 4) * torch.tensor([96 / 120, 96 / 80] * 2)
        boxes[:, 2:] += boxes[:, :2]
        numbers = [1 + labels.index(("cat", "dog")[a["category_id"] - 1]) for a in own]
        targets.append({"boxes": boxes, "labels": torch.tensor(numbers, dtype=torch.int64)})
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(steps):
        loss = torch.stack(list(model(pictures, targets).values())).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return model


def test_a_new_model_finds_what_the_pretrained_one_has_learned(tmp_path: Path) -> None:
    """Before its first step, and after an epoch of each stage; with a new predictor it would find nothing yet."""
    tiny.make_boxes(tmp_path)
    save_file(train_stand_in(tmp_path, 40).state_dict(), tmp_path / "data/coco.safetensors")
    text = (tmp_path / "data/boxes.json").read_text()
    (tmp_path / "data/boxes.json").write_text(text.replace('"red"', '"cat"').replace('"blue"', '"dog"'))
    params = tiny.make_detect_params(
        model={"detector": LITE, "backbone": "", "pyramid": 256, "weights": "data/coco.safetensors"},
        augment={"mosaic": 0},
        train_head={"epochs": 1, "lr": 1e-4},
        fine_tune={"epochs": 1, "lr": 1e-5},
    )
    tiny.run(tmp_path, params, "fetch", "weights", "split", "augment")
    test, (spec, pretrained) = (
        tiny.manifest(tmp_path, "split", "test"),
        load_pretrained("detect", params.model, ["cat", "dog"], tmp_path),
    )

    def ap50(network: detector.Detector) -> float:
        pixels = load_pixels(test.images, tmp_path, spec.input, "decode")
        outputs = run_inference(network.eval(), pixels, spec.input, configure_torch(params.train, 0))
        return float(match_detections(test, detector.to_coco_results(network, outputs, test, spec)).stats[1])

    assert ap50(detector.build_from_pretrained(pretrained, spec)) > 0.8
    without = torchvision_detectors.drop_predictor(pretrained)
    torch.manual_seed(0)
    assert ap50(detector.build_from_pretrained(without, spec)) < 0.2
    tiny.run(tmp_path, params, "train-head", "fine-tune")
    tensors, spec = read_model_file(tmp_path / "stages/fine-tune/model.safetensors")
    assert ap50(detector.build(tensors, spec)) > 0.8


def test_a_size_that_it_does_not_take() -> None:
    with pytest.raises(UserError, match=r"model\.image_size: 96: ssd300_vgg16 does not take pictures of that size"):
        detector.build_from_pretrained({}, make_spec("ssd300_vgg16"))


def test_no_detector_is_bundled(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"bundled are tf_efficientnet_lite0, .*, not {LITE}; set model.weights to hub"):
        run_weights(tmp_path, "bundled")


def test_the_whole_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch each; frozen tensors stay, the predictor is new, and the exported file finds what was evaluated.

    The epoch counts as better than none. For two-stage detectors see above and test_fasterrcnn: untrained, a complete
    one proposes boxes of nearly equal scores, and which of these NMS keeps is chance.
    """
    losses = itertools.count(100, -1)
    monkeypatch.setattr(
        detector, "compute_val_metrics", lambda *_: {"val_loss": float(next(losses)), "val_AP": 0.0, "val_AP50": 0.0}
    )
    name = LITE
    tiny.make_boxes(tmp_path)
    params = tiny.make_detect_params(
        model={"detector": name, "backbone": "", "pyramid": 256, "image_size": 64},
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
    tensors, spec = read_model_file(tmp_path / "stages/fine-tune/model.safetensors")
    assert (spec.detector, spec.backbone, spec.pyramid) == (name, "", 0)
    for prefix in ("backbone.body.", "backbone.features."):
        for layer in ("0.0", "0.0.0"):
            if f"{prefix}{layer}.weight" in pretrained:
                assert torch.equal(tensors[f"trunk.layers.{layer}.weight"], pretrained[f"{prefix}{layer}.weight"])
    page = (tmp_path / "stages/evaluate/report.html").read_text(encoding="utf-8")
    assert f"{name}, with a new predictor" in page
    card = (tmp_path / "stages/export/model_card.md").read_text(encoding="utf-8")
    assert f"{name}, with a new predictor |" in card
