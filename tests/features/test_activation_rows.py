"""Activations as rows and back: the same values, feature maps in channels_last."""

import pytest
import torch

from headstart.features.activation_rows import activations_to_rows, rows_to_activations

SHAPES = [(4, 3, 2), (7,), (2, 5, 5), (6, 4)]


@pytest.mark.parametrize("shapes", [SHAPES, SHAPES[:1], SHAPES[1:2], SHAPES[3:]])
def test_there_and_back(shapes: list[tuple[int, ...]]) -> None:
    activations = [torch.randn(3, *shape) for shape in shapes]
    rows = activations_to_rows(activations, shapes)
    assert rows.shape == (3, sum(torch.Size(shape).numel() for shape in shapes))
    for found, expected in zip(rows_to_activations(rows, shapes), activations, strict=True):
        assert torch.equal(found, expected)


def test_feature_maps_lie_in_channels_last() -> None:
    feature_map = torch.arange(24.0).reshape(1, 4, 3, 2)
    rows = activations_to_rows([feature_map], [(4, 3, 2)])
    assert torch.equal(rows[0], feature_map.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).flatten())
    (found,) = rows_to_activations(rows, [(4, 3, 2)])
    assert found.is_contiguous(memory_format=torch.channels_last)
