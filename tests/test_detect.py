"""The detector: its loss against torchvision's own, its boxes against torchvision's own, what it is built of."""

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

import tiny
from conftest import Project
from headstart import detect, fasterrcnn, modelfile
from headstart.errors import UserError
from headstart.fasterrcnn import FasterRcnn
from headstart.fcos import Fcos
from headstart.modelfile import Card
from headstart.params import HeadParams
from headstart.pixels import Input, from_input, to_input

DETECTORS = ["fcos", "retinanet", "fasterrcnn"]
SIZE = 96
INPUT = Input(size=SIZE, resize="squash", interpolation="bilinear", crop=1, mean=(0.5,) * 3, std=(0.5,) * 3)


def card(detector: str, backbone: str = tiny.TRUNK, size: int = SIZE) -> Card:
    return Card(
        task="detect",
        backbone=backbone,
        labels=("a", "b", "c"),
        features=0,
        head=HeadParams(),
        input=INPUT.model_copy(update={"size": size}),
        detector=detector,
        pyramid=64,
    )


def network(detector: str, **how: Any) -> detect.Detector:
    from headstart.weights import trunk

    torch.manual_seed(0)
    own = card(detector, **how)
    return detect.start(trunk(own.backbone).state_dict(), own)


class Wrapped(torch.nn.Module):
    out_channels = 64

    def __init__(self, inner: detect.Detector) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        return {str(number): each for number, each in enumerate(self.inner.maps(pictures))}


def torchvisions(inner: detect.Detector) -> Any:
    """torchvision's own model around our backbone, pyramid and layers; its anchors are its own."""
    head, most = inner.head, 10**6
    shared = {"min_size": SIZE, "max_size": SIZE, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]}
    if isinstance(head, FasterRcnn):
        return FasterRCNN(
            Wrapped(inner),
            **shared,
            rpn_head=head.proposer,
            rpn_pre_nms_top_n_train=fasterrcnn.BEFORE,
            rpn_pre_nms_top_n_test=fasterrcnn.BEFORE,
            rpn_post_nms_top_n_train=fasterrcnn.TAUGHT,
            rpn_post_nms_top_n_test=fasterrcnn.GIVEN,
            rpn_batch_size_per_image=most,
            box_batch_size_per_image=most,
            rpn_positive_fraction=0.5,
            box_positive_fraction=0.5,
            box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], 7, 2),
            box_head=head.crops,
            box_predictor=head.predictor,
            box_score_thresh=detect.LEAST,
            box_nms_thresh=head.overlap,
        )
    return (FCOS if isinstance(head, Fcos) else RetinaNet)(
        Wrapped(inner),
        num_classes=3,
        **shared,
        head=head.layers,
        score_thresh=detect.LEAST,
        nms_thresh=head.overlap,
        detections_per_img=100,
    )


@pytest.fixture
def all_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """No draw of what is learned from: what is drawn cannot be the same as what torchvision draws."""
    for name in ("ANCHORS", "BOXES"):
        monkeypatch.setattr(fasterrcnn, name, 10**6)
    monkeypatch.setattr(fasterrcnn, "BOX_SHARE", 0.5)


def random_targets(counts: Sequence[int], seed: int = 1) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    found = []
    for count in counts:
        corner, side = rng.uniform(0, 70, (count, 2)), rng.uniform(4, 90, (count, 2))
        boxes = np.concatenate([rng.integers(0, 3, (count, 1)), corner, (corner + side).clip(0, SIZE)], 1)
        found.append(torch.from_numpy(boxes).float())
    return found


@pytest.mark.usefixtures("all_learned")
@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("counts", [(3, 0, 1, 12), (0, 0), (40, 5)])
def test_the_loss_and_its_gradient_are_torchvisions(detector: str, counts: tuple[int, ...]) -> None:
    inner = network(detector)
    pictures, targets = torch.randn(len(counts), 3, SIZE, SIZE), random_targets(counts)
    theirs = torchvisions(inner).train()
    inner.trunk.eval()
    first = int(isinstance(inner.head, FasterRcnn))  # torchvision's label 0 is: nothing
    shown = [{"labels": t[:, 0].long() + first, "boxes": t[:, 1:]} for t in targets]
    wanted = sum(theirs(list(pictures), shown).values(), torch.zeros(()))
    parameters = list(inner.head.parameters())
    expected = torch.autograd.grad(wanted, parameters, allow_unused=True)
    found = detect.loss(inner, inner(pictures, detect.padded(targets)), detect.padded(targets))
    gradient = torch.autograd.grad(found, parameters, allow_unused=True)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    for one, other in zip(gradient, expected, strict=True):
        zero = torch.zeros(())
        torch.testing.assert_close(zero if one is None else one, zero if other is None else other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_boxes_are_torchvisions(detector: str) -> None:
    inner = network(detector)
    for name, parameter in inner.head.named_parameters():
        if "cls_logits.bias" in name:
            torch.nn.init.constant_(parameter, -1.0)  # sure of many things
        elif parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.06)
    pictures = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        theirs = torchvisions(inner).eval()(list(pictures))
        boxes, scores, labels = detect.predict(inner, inner(pictures))
    for number, wanted in enumerate(theirs):
        count = len(wanted["scores"])
        assert count > 20
        torch.testing.assert_close(scores[number, :count], wanted["scores"], rtol=1e-4, atol=1e-5)
        assert (scores[number, count:] == 0).all()
        same = labels[number, :count] == wanted["labels"] - int(isinstance(inner.head, FasterRcnn))
        assert same.float().mean() > 0.95, "but for boxes of the same score"
        torch.testing.assert_close(boxes[number, :count][same], wanted["boxes"][same], rtol=1e-3, atol=1e-2)


def test_anchors_lie_where_torchvision_has_them() -> None:
    inner = network("fcos")
    maps = inner.maps(torch.zeros(1, 3, SIZE, SIZE))
    (wanted,) = torchvisions(inner).anchor_generator(ImageList(torch.zeros(1, 3, SIZE, SIZE), [(SIZE,) * 2]), maps)
    assert isinstance(inner.head, Fcos)
    assert torch.equal(inner.head.anchors, wanted)
    assert inner.head.counts == [144, 36, 9, 4, 1]


def test_what_no_map_depends_on_is_known() -> None:
    inner = network("fcos")
    some, idle = detect.blocks(inner)
    assert {name.split(".")[0] for name in idle} == {"conv_head", "bn2"}
    assert [block.number for block in some] == list(range(6))


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "mobilenetv3_small_050"])
def test_another_backbone(backbone: str) -> None:
    """Any with maps of strides 8, 16 and 32; one without them is a line."""
    if backbone == "test_vit":
        with pytest.raises(UserError, match="'test_vit': a feature pyramid needs maps of strides 8, 16, 32"):
            network("fcos", backbone=backbone, size=160)
    else:
        assert network("fcos", backbone=backbone)(torch.zeros(1, 3, SIZE, SIZE)).shape[1] >= 190


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_boxes_go_to_the_input_and_back(resize: str) -> None:
    wanted = INPUT.model_copy(update={"resize": resize, "crop": 0.875})
    boxes = np.array([[60, 40, 100, 80], [50, 30, 90, 110]], np.float32)
    there = to_input(boxes, 160, 120, wanted)
    assert from_input(there, 160, 120, wanted) == pytest.approx(boxes, abs=1e-3)
    if resize == "squash":
        assert there[0].tolist() == pytest.approx([36, 32, 60, 64])


def test_crowds_are_not_learned_and_a_picture_may_have_no_box(detect_project: Project) -> None:
    manifest = tiny.manifest(detect_project.root, "fetch", "annotations")
    boxes = tuple(a.model_copy(update={"iscrowd": int(a.id == 1)}) for a in manifest.annotations)
    targets = detect.targets(manifest.model_copy(update={"annotations": boxes}), INPUT)
    assert sum(len(each) for each in targets) == len(boxes) - 1
    assert any(len(each) == 0 for each in targets)
    assert detect.padded(targets).shape == (16, 2, 5)
    assert detect.padded([torch.zeros(0, 5)] * 2).tolist() == [[[-1] * 5]] * 2


@pytest.mark.parametrize("detector", DETECTORS)
def test_thousands_of_boxes(detector: str) -> None:
    """A picture of 5,000 boxes is learned from like any other."""
    inner, targets = network(detector), detect.padded(random_targets([5000]))
    found = detect.loss(inner, inner(torch.randn(1, 3, SIZE, SIZE), targets), targets)
    assert 0 < found.item() < 100


def test_the_card_says_what_it_is(detect_project: Project) -> None:
    tensors, own = modelfile.read(detect_project.root / "stages/fine-tune/model.safetensors")
    assert (own.task, own.detector, own.pyramid, own.labels) == ("detect", "fcos", 64, ("blue", "red"))
    assert {name.split(".")[0] for name in tensors} == {"trunk", "pyramid", "head"}
    assert own == modelfile.read(detect_project.root / "stages/train-head/model.safetensors")[1]
