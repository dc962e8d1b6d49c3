"""Which features strangeness looks at, and that the classifier's logits do not change by looking."""

import pytest
import torch

from headstart.models.backbone import create_backbone
from headstart.models.block_features import block_features, find_levels
from headstart.models.classifier import Classifier
from headstart.models.strangeness_features import ClassifierWithFeatures, plan_features

SIZE = 64


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_vit"])
@pytest.mark.parametrize("blocks", [False, True])
@torch.no_grad()
def test_logits_stay_and_features_are_the_last_ones_and_means_of_blocks(name: str, blocks: bool) -> None:
    size = 160 if name == "test_vit" else SIZE
    torch.manual_seed(0)
    trunk = create_backbone(name).eval()
    levels, width = find_levels(trunk, size) if blocks else ([], trunk(torch.zeros(1, 3, size, size)).shape[1])
    network = Classifier(trunk, torch.nn.Linear(width, 3), levels).eval()
    plan = plan_features(network, size)
    pictures = torch.randn(2, 3, size, size)
    logits, features = ClassifierWithFeatures(network, plan).eval().logits_and_features(pictures)
    torch.testing.assert_close(logits, network(pictures), rtol=0, atol=0)
    own = plan.widths[0]
    torch.testing.assert_close(features[:, :own], trunk(pictures), rtol=0, atol=0)
    assert len(plan.parts) == 3
    assert features.shape == (2, sum(plan.widths))
    if blocks:
        assert plan.levels == network.levels, "the backbone runs once"
    looked_at = [level for level in plan.levels if level in (levels[-1:] or plan.levels[-1:])]
    last_block = block_features(trunk, pictures, looked_at)
    mean = last_block[:, own : own + plan.widths[-1]]
    torch.testing.assert_close(features[:, -plan.widths[-1] :], mean, rtol=0, atol=0)
