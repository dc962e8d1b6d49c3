"""A network under autocast computes nearly what it computes in fp32."""

import torch
from torch import nn

import tiny
from headstart.engine.device import Compute
from headstart.models.backbone import create_backbone
from headstart.models.classifier import Classifier
from headstart.training.autocast import AutocastNetwork


def test_autocast_is_close() -> None:
    network = Classifier(create_backbone(tiny.TRUNK), nn.Linear(256, 2)).eval()
    pictures = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = network(pictures)
        outputs = AutocastNetwork(network, network.trunk, Compute(torch.device("cpu"), torch.bfloat16), "fixed")(
            pictures
        )
    assert (outputs.float() - expected).abs().max() < 0.05 * expected.abs().max() + 0.01


def test_fixed_statistics_stay_in_eval_mode() -> None:
    network = Classifier(create_backbone(tiny.TRUNK), nn.BatchNorm1d(256))
    for batch_norm, training in (("fixed", False), ("update", True)):
        wrapped = AutocastNetwork(network, network.trunk, Compute(torch.device("cpu")), batch_norm).train()
        assert {norm.training for norm in wrapped.norms} == {training}
        assert network.head.training, "the head's own batch norm always updates"
