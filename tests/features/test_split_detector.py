"""A detector's frozen backbone and the rest: together they compute what the detector computes."""

import pytest
import torch

from headstart.features.split_detector import BackboneToRows, HeadFromRows
from headstart.models.detector import pad_targets
from models.test_detector import DETECTORS, SIZE, build, random_targets


@pytest.mark.parametrize("name", DETECTORS)
def test_both_parts_together_are_the_detector(name: str) -> None:
    whole = build(name)
    lower = BackboneToRows(whole)
    upper = HeadFromRows(whole, lower.shapes)
    pictures, targets = torch.randn(2, 3, SIZE, SIZE), pad_targets(random_targets((3, 1)))
    with torch.no_grad():
        rows = lower(pictures)
        assert rows.shape == (2, lower.width)
        torch.testing.assert_close(upper(rows), whole(pictures))
        torch.testing.assert_close(upper(rows, targets), whole(pictures, targets))


def test_shapes_are_those_of_the_backbones_feature_maps() -> None:
    lower = BackboneToRows(build("fcos"))
    assert [tuple(shape)[1:] for shape in lower.shapes] == [(SIZE // stride,) * 2 for stride in (8, 16, 32)]
