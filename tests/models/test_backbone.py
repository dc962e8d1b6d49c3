"""timm networks without their classifier."""

import pytest
import torch

import tiny
from headstart.base.errors import UserError
from headstart.models.backbone import create_backbone, image_size_error


def test_the_output_is_the_pooled_features() -> None:
    backbone = create_backbone(tiny.TRUNK, drop_path_rate=0.1).eval()
    assert backbone(torch.zeros(2, 3, 32, 32)).shape == (2, 256)
    assert not any(name.startswith("classifier") for name in backbone.state_dict())


def test_an_unknown_network_and_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"'efficientnet_lit0': timm has no such network; did you mean .*efficientnet_lite0"
    ):
        create_backbone("efficientnet_lit0")


def test_a_size_that_a_network_does_not_take() -> None:
    for shape, given in (((17, 17), "17"), ((17, 32), "[17, 32]")):
        error = image_size_error(shape, "test_vit", RuntimeError("one line\nand another"), "give another one")
        assert str(error) == (
            f"params.yaml: model.image_size: {given}: test_vit does not take pictures of that size (one line); "
            "give another one"
        )
