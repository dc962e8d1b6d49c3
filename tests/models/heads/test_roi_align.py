"""RoIAlign as matrix products: values and gradients are those of torchvision's operation."""

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from headstart.models.heads.roi_align import multiscale_roi_align

STRIDES = (8, 16, 32)


def random_boxes() -> torch.Tensor:
    """Of all sizes, some reaching far out of the picture, one without area."""
    corners = torch.rand(2, 60, 2) * 200
    boxes = torch.cat([corners, corners + torch.rand(2, 60, 2) ** 3 * 900], -1)
    boxes[0, 0] = 0
    return boxes


@pytest.mark.parametrize("seed", range(3))
def test_features_and_their_gradients_are_torchvisions_from_the_level_for_each_size(seed: int) -> None:
    torch.manual_seed(seed)
    feature_maps = [torch.randn(2, 4, 320 // stride, 320 // stride, requires_grad=True) for stride in STRIDES]
    boxes = random_boxes()
    by_name = dict(zip("abc", feature_maps, strict=True))
    reference = MultiScaleRoIAlign(["a", "b", "c"], 7, 2)(by_name, list(boxes), [(320, 320)] * 2)
    features = multiscale_roi_align(feature_maps, boxes, STRIDES)
    torch.testing.assert_close(features, reference)
    weight = torch.randn_like(reference)
    expected = torch.autograd.grad((reference * weight).sum(), feature_maps)
    found = torch.autograd.grad((features * weight).sum(), feature_maps)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)  # gradients of many boxes add up at one pixel
    assert all(each.abs().sum() > 0 for each in expected), "boxes of every level"


def test_bf16_feature_maps() -> None:
    torch.manual_seed(0)
    feature_maps = [torch.randn(2, 4, 320 // stride, 320 // stride) for stride in STRIDES]
    boxes = random_boxes()
    features = multiscale_roi_align([each.bfloat16() for each in feature_maps], boxes, STRIDES)
    assert features.dtype == torch.bfloat16
    torch.testing.assert_close(
        features.float(), multiscale_roi_align(feature_maps, boxes, STRIDES), rtol=0.02, atol=0.03
    )


def test_of_feature_maps_of_one_stride_the_first_is_used() -> None:
    """torchvision's Faster R-CNN on MobileNetV3 has two of stride 32."""
    torch.manual_seed(0)
    feature_maps = [torch.randn(2, 4, 10, 10) for _ in range(2)]
    boxes = random_boxes()
    reference = MultiScaleRoIAlign(["a", "b"], 7, 2)(
        dict(zip("ab", feature_maps, strict=True)), list(boxes), [(320, 320)] * 2
    )
    torch.testing.assert_close(multiscale_roi_align(feature_maps, boxes, (32, 32)), reference)
