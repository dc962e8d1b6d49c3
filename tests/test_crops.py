"""RoIAlign as matrix products: values and gradients are those of torchvision's operation."""

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from headstart.crops import crop

STRIDES = (8, 16, 32)


def random_boxes() -> torch.Tensor:
    """Of all sizes, some reaching far out of the picture, one of no area."""
    corners = torch.rand(2, 60, 2) * 200
    boxes = torch.cat([corners, corners + torch.rand(2, 60, 2) ** 3 * 900], -1)
    boxes[0, 0] = 0
    return boxes


@pytest.mark.parametrize("seed", range(3))
def test_crops_and_their_gradients_are_torchvisions_from_the_level_of_their_size(seed: int) -> None:
    torch.manual_seed(seed)
    maps = [torch.randn(2, 4, 320 // stride, 320 // stride, requires_grad=True) for stride in STRIDES]
    boxes = random_boxes()
    named = dict(zip("abc", maps, strict=True))
    theirs = MultiScaleRoIAlign(["a", "b", "c"], 7, 2)(named, list(boxes), [(320, 320)] * 2)
    ours = crop(maps, boxes, STRIDES)
    torch.testing.assert_close(ours, theirs)
    weight = torch.randn_like(theirs)
    expected = torch.autograd.grad((theirs * weight).sum(), maps)
    found = torch.autograd.grad((ours * weight).sum(), maps)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)  # many crops add up in one place
    assert all(each.abs().sum() > 0 for each in expected), "every level was asked"


def test_maps_of_less_precision() -> None:
    torch.manual_seed(0)
    maps = [torch.randn(2, 4, 320 // stride, 320 // stride) for stride in STRIDES]
    boxes = random_boxes()
    small = crop([each.bfloat16() for each in maps], boxes, STRIDES)
    assert small.dtype == torch.bfloat16
    torch.testing.assert_close(small.float(), crop(maps, boxes, STRIDES), rtol=0.02, atol=0.03)
