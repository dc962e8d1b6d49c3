"""torchvision's complete detectors by name: taken apart they are what torchvision has, and they go all the way."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import test_detect
import tiny
from conftest import Project, run_spied
from headstart import detect, fasterrcnn, freeze, whole
from headstart.errors import UserError
from headstart.modelfile import Card
from headstart.params import WHOLE
from headstart.weights import weights

SIZE = {"ssd300_vgg16": 300}  # all others take a small one
BLOCKS = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": 17,
    "fasterrcnn_resnet50_fpn_v2": 17,
    "fcos_resnet50_fpn": 17,
    "retinanet_resnet50_fpn_v2": 17,
    "ssd300_vgg16": 14,
    "ssdlite320_mobilenet_v3_large": 18,
}


def card(name: str) -> Card:
    return test_detect.card(name, "", SIZE.get(name, 96)).model_copy(update={"pyramid": 0})


@pytest.mark.usefixtures("all_learned")
@pytest.mark.parametrize("name", WHOLE)
def test_taken_apart_it_says_what_torchvisions_says(name: str) -> None:
    """Loss and boxes are those of torchvision's own model with the same tensors; blocks are counted."""
    torch.manual_seed(0)
    own = card(name)
    model = whole.make(name, 3)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    tensors = model.state_dict()
    network = detect.start(tensors, own)
    side = own.input.size
    print(len(detect.blocks(network)[0]))
