"""Whether a network trains a batch norm, by its frozen parts and by fine_tune.batch_norm."""

import pytest
import torch
from torch import nn

from headstart.engine.device import Compute
from headstart.training.autocast import AutocastNetwork
from headstart.training.batch_norm import trains_batch_norm


@pytest.mark.parametrize(
    ("frozen", "batch_norm", "expected"),
    [(False, "update", True), (False, "fixed", False), (True, "update", False), (True, "fixed", False)],
)
def test_a_batch_norm_of_the_backbone(frozen: bool, batch_norm: str, expected: bool) -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    network = nn.Sequential(backbone, nn.Flatten(), nn.LazyLinear(2))
    network.eval()(torch.zeros(1, 3, 8, 8))
    backbone.requires_grad_(not frozen)
    training = AutocastNetwork(network, backbone, Compute(torch.device("cpu")), batch_norm)
    assert trains_batch_norm(training) is expected
    assert not any(module.training for module in training.modules()), "left in eval mode"


def test_a_batch_norm_of_the_head_trains_whatever_the_backbones_do() -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    network = nn.Sequential(backbone, nn.Linear(4 * 36, 4), nn.BatchNorm1d(4))
    assert trains_batch_norm(AutocastNetwork(network, backbone, Compute(torch.device("cpu")), "fixed"))
