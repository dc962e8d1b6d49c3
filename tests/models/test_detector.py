"""Detectors on a timm backbone: loss, gradients and boxes against torchvision's, targets, blocks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models.detection.faster_rcnn import FasterRCNN
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.ops import MultiScaleRoIAlign

import synthetic_boxes
import tiny
from conftest import Project
from headstart.engine.input_spec import ImageSize, InputSpec
from headstart.models import detector
from headstart.models.backbone import create_backbone
from headstart.models.file import ModelSpec, read_model_file
from headstart.models.heads import fasterrcnn
from headstart.models.heads.fasterrcnn import FasterRcnnDetectionHead
from headstart.models.heads.fcos import FcosDetectionHead
from headstart.params.root import HeadParams

DETECTORS = ["fcos", "retinanet", "fasterrcnn"]
SIZE = 96
ALL = 10**6  # more than there are anchors or proposals
INPUT = InputSpec(size=SIZE, resize="squash", interpolation="bilinear", crop=1, mean=(0.5,) * 3, std=(0.5,) * 3)


def make_spec(name: str, backbone: str = tiny.TRUNK, size: ImageSize = SIZE) -> ModelSpec:
    return ModelSpec(
        task="detect",
        backbone=backbone,
        labels=("a", "b", "c"),
        features=0,
        head=HeadParams(),
        input=INPUT.model_copy(update={"size": size}),
        detector=name,
        pyramid=64,
    )


def build(name: str, **options: Any) -> detector.Detector:
    torch.manual_seed(0)
    spec = make_spec(name, **options)
    return detector.build_from_pretrained(create_backbone(spec.backbone).state_dict(), spec)


class PyramidBackbone(torch.nn.Module):
    """Backbone and pyramid as torchvision's detectors call them."""

    out_channels = 64

    def __init__(self, network: detector.Detector) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        return {str(number): each for number, each in enumerate(self.network.pyramid_features(pictures))}


def torchvision_detector(network: detector.Detector) -> Any:
    """torchvision's own model around our backbone, pyramid and layers; its anchors are its own."""
    head = network.head
    shared = {
        "min_size": min(network.shape),
        "max_size": max(network.shape),
        "image_mean": [0, 0, 0],
        "image_std": [1, 1, 1],
    }
    if isinstance(head, FasterRcnnDetectionHead):
        return FasterRCNN(
            PyramidBackbone(network),
            **shared,
            rpn_head=head.proposer,
            rpn_pre_nms_top_n_train=fasterrcnn.RPN_PRE_NMS_TOP_N,
            rpn_pre_nms_top_n_test=fasterrcnn.RPN_PRE_NMS_TOP_N,
            rpn_post_nms_top_n_train=fasterrcnn.RPN_POST_NMS_TOP_N_TRAIN,
            rpn_post_nms_top_n_test=fasterrcnn.RPN_POST_NMS_TOP_N_TEST,
            rpn_batch_size_per_image=ALL,
            box_batch_size_per_image=ALL,
            rpn_positive_fraction=0.5,
            box_positive_fraction=0.5,
            box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], 7, 2),
            box_head=head.crops,
            box_predictor=head.predictor,
            box_score_thresh=detector.MIN_SCORE,
            box_nms_thresh=head.nms_iou,
        )
    return (FCOS if isinstance(head, FcosDetectionHead) else RetinaNet)(
        PyramidBackbone(network),
        num_classes=3,
        **shared,
        head=head.layers,
        score_thresh=detector.MIN_SCORE,
        nms_thresh=head.nms_iou,
        detections_per_img=100,
    )


@pytest.fixture
def all_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all anchors and proposals be in the loss: a random sample would be another one than torchvision's."""
    for name in ("RPN_BATCH_PER_IMAGE", "BOX_BATCH_PER_IMAGE"):
        monkeypatch.setattr(fasterrcnn, name, ALL)
    monkeypatch.setattr(fasterrcnn, "BOX_POSITIVE_FRACTION", 0.5)


def random_targets(counts: Sequence[int], seed: int = 1, height: int = SIZE) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    targets = []
    for count in counts:
        corner, side = rng.uniform(0, 70, (count, 2)), rng.uniform(4, 90, (count, 2))
        boxes = np.concatenate([rng.integers(0, 3, (count, 1)), corner, (corner + side).clip(0, SIZE)], 1)
        boxes[:, 2::2] *= height / SIZE
        targets.append(torch.from_numpy(boxes).float())
    return targets


def test_balanced_weights_are_1_over_all_boxes_and_larger_for_the_rare() -> None:
    targets = [torch.tensor([[0.0, 0, 0, 9, 9]] * 6), torch.zeros(0, 5), torch.tensor([[2.0, 0, 0, 9, 9]] * 2)]
    weights = detector.balanced_weights(targets, 3)
    assert weights.tolist() == pytest.approx([8 / 18, 8 / 3, 8 / 6])  # the second label has no box
    assert 6 * weights[0] + 2 * weights[2] == pytest.approx(8 * 2 / 3)


@pytest.mark.usefixtures("all_sampled")
@pytest.mark.parametrize("name", DETECTORS)
def test_a_weight_is_the_loss_of_so_many_boxes_of_that_label(name: str) -> None:
    """Twice the weight adds what the label's true boxes have in the classification loss; 1 changes nothing."""
    network = build(name).eval()
    targets = detector.pad_targets(random_targets((4, 2)))
    targets[..., 0] = torch.where(targets[..., 0] >= 0, targets[..., 0] % 2, -1.0)  # label 2 has no box
    outputs = network(torch.randn(2, 3, SIZE, SIZE)).detach()

    def loss_at(*weights: float) -> float:
        return detector.loss(network, outputs, targets, torch.tensor(weights).float()).item()

    plain = detector.loss(network, outputs, targets).item()
    assert loss_at(1, 1, 1) == pytest.approx(plain, rel=1e-5)
    assert loss_at(1, 1, 9) == pytest.approx(plain, rel=1e-5)
    one, two = loss_at(2, 1, 1) - plain, loss_at(3, 1, 1) - plain
    assert one > 1e-3
    assert two == pytest.approx(2 * one, rel=1e-3)
    assert loss_at(2, 2, 1) - plain == pytest.approx(one + loss_at(1, 2, 1) - plain, rel=1e-3)


@pytest.mark.usefixtures("all_sampled")
@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize(("counts", "height"), [((3, 0, 1, 12), SIZE), ((0, 0), SIZE), ((40, 5), SIZE), ((3, 9), 64)])
def test_the_loss_and_its_gradient_are_torchvisions(name: str, counts: tuple[int, ...], height: int) -> None:
    network = build(name, size=(height, SIZE))
    pictures, targets = torch.randn(len(counts), 3, height, SIZE), random_targets(counts, height=height)
    reference = torchvision_detector(network).train()
    network.trunk.eval()
    first = int(isinstance(network.head, FasterRcnnDetectionHead))  # torchvision's label 0 is background
    reference_targets = [{"labels": t[:, 0].long() + first, "boxes": t[:, 1:]} for t in targets]
    expected_loss = sum(reference(list(pictures), reference_targets).values(), torch.zeros(()))
    parameters = list(network.head.parameters())
    expected = torch.autograd.grad(expected_loss, parameters, allow_unused=True)
    padded = detector.pad_targets(targets)
    loss = detector.loss(network, network(pictures, padded), padded)
    gradient = torch.autograd.grad(loss, parameters, allow_unused=True)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-4, atol=1e-5)
    for one, other in zip(gradient, expected, strict=True):
        zero = torch.zeros(())
        torch.testing.assert_close(zero if one is None else one, zero if other is None else other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("shape", [(SIZE, SIZE), (SIZE, 64)])
def test_the_boxes_are_torchvisions(name: str, shape: tuple[int, int]) -> None:
    network = build(name, size=shape)
    for key, parameter in network.head.named_parameters():
        if "cls_logits.bias" in key:
            torch.nn.init.constant_(parameter, -1.0)  # many high scores
        elif parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.06)
    pictures = torch.randn(2, 3, *shape)
    with torch.no_grad():
        reference = torchvision_detector(network).eval()(list(pictures))
        boxes, scores, labels = detector.predict(network, network(pictures))
    for number, expected in enumerate(reference):
        count = len(expected["scores"])
        assert count > 20
        torch.testing.assert_close(scores[number, :count], expected["scores"], rtol=1e-4, atol=1e-5)
        assert (scores[number, count:] == 0).all()
        same = labels[number, :count] == expected["labels"] - int(isinstance(network.head, FasterRcnnDetectionHead))
        assert same.float().mean() > 0.95, "but for boxes of the same score"
        torch.testing.assert_close(boxes[number, :count][same], expected["boxes"][same], rtol=1e-3, atol=1e-2)


def test_anchors_lie_where_torchvision_has_them() -> None:
    network = build("fcos")
    feature_maps = network.pyramid_features(torch.zeros(1, 3, SIZE, SIZE))
    pictures = ImageList(torch.zeros(1, 3, SIZE, SIZE), [(SIZE,) * 2])
    (expected,) = torchvision_detector(network).anchor_generator(pictures, feature_maps)
    assert isinstance(network.head, FcosDetectionHead)
    assert torch.equal(network.head.anchors, expected)
    assert network.head.anchors_per_level == [144, 36, 9, 4, 1]


def test_parameters_that_no_feature_map_depends_on() -> None:
    network = build("fcos")
    blocks, unused = detector.blocks_and_unused_parameters(network)
    assert {name.split(".")[0] for name in unused} == {"conv_head", "bn2"}
    assert [block.number for block in blocks] == list(range(6))


def test_crowds_are_no_targets_and_a_picture_may_have_no_box(detect_project: Project) -> None:
    manifest = tiny.manifest(detect_project.root, "fetch", "annotations")
    boxes = tuple(a.model_copy(update={"iscrowd": int(a.id == 1)}) for a in manifest.annotations)
    targets = detector.encode_targets(manifest.model_copy(update={"annotations": boxes}), INPUT)
    assert sum(len(each) for each in targets) == len(boxes) - 1
    assert any(len(each) == 0 for each in targets)
    assert detector.pad_targets(targets).shape == (16, 2, 5)
    assert detector.pad_targets([torch.zeros(0, 5)] * 2).tolist() == [[[-1] * 5]] * 2


def test_a_box_that_the_crop_cuts_stays() -> None:
    """Of a picture of 200 x 160 the input shows 120 columns from the 40th on, 1.25 times smaller than the picture."""
    cropped = INPUT.model_copy(update={"resize": "crop", "crop": 0.75})
    inside, cut, sliver, outside = ((90.0, 70, 20, 20), (20.0, 70, 50, 20), (0.0, 70, 40.5, 20), (0.0, 70, 30, 20))
    truth = synthetic_boxes.manifest([[("cat", inside), ("dog", cut), ("cat", sliver), ("cat", outside)]])
    (targets,) = detector.encode_targets(truth, cropped)
    assert targets[:, 0].tolist() == [0, 1]
    assert targets[1, [1, 2, 3, 4]].tolist() == pytest.approx([0, 40, 24, 56], abs=1)
    (whole,) = detector.encode_targets(truth, INPUT)
    assert len(whole) == 4


@pytest.mark.parametrize("name", DETECTORS)
def test_a_picture_of_thousands_of_boxes(name: str) -> None:
    network, targets = build(name), detector.pad_targets(random_targets([5000]))
    loss = detector.loss(network, network(torch.randn(1, 3, SIZE, SIZE), targets), targets)
    assert 0 < loss.item() < 100


def test_the_spec_in_the_model_file(detect_project: Project) -> None:
    tensors, spec = read_model_file(detect_project.root / "stages/fine-tune/model.safetensors")
    assert (spec.task, spec.detector, spec.pyramid, spec.labels) == ("detect", "fcos", 64, ("blue", "red"))
    assert {name.split(".")[0] for name in tensors} == {"trunk", "pyramid", "head"}
    assert spec == read_model_file(detect_project.root / "stages/train-head/model.safetensors")[1]
