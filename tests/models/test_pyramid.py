"""A feature pyramid needs a backbone with feature maps of its strides."""

import pytest
import torch

import tiny
from headstart.base.errors import UserError
from headstart.models.backbone import create_backbone
from headstart.models.pyramid import backbone_feature_maps, pyramid_levels
from models.test_detector import SIZE, build, make_spec


@pytest.mark.parametrize("backbone", [tiny.TRUNK, "test_resnet", "mobilenetv3_small_050"])
def test_the_levels_are_the_last_feature_maps_of_their_strides(backbone: str) -> None:
    network = create_backbone(backbone).eval()
    levels, channels = pyramid_levels(network, make_spec("fcos", backbone))
    feature_maps = backbone_feature_maps(network, torch.zeros(1, 3, SIZE, SIZE), levels)
    assert [(each.shape[1], each.shape[-1]) for each in feature_maps] == [
        (count, SIZE // stride) for count, stride in zip(channels, (8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize("backbone", ["test_resnet", "mobilenetv3_small_050"])
def test_a_detector_on_another_backbone(backbone: str) -> None:
    assert build("fcos", backbone=backbone)(torch.zeros(1, 3, SIZE, SIZE)).shape[1] >= 190


def test_a_backbone_without_such_feature_maps() -> None:
    with pytest.raises(UserError, match="'test_vit': a feature pyramid needs feature maps of strides 8, 16, 32"):
        build("fcos", backbone="test_vit", size=160)
