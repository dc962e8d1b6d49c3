"""A detector split above its frozen backbone: the backbone's feature maps as rows for the cache, the rest trains."""

import math

import torch
from torch import Tensor, nn

from headstart.engine.equivalence import example_input
from headstart.features.activation_rows import Shapes, activations_to_rows, rows_to_activations
from headstart.models.detector import Detector
from headstart.models.pyramid import backbone_feature_maps


class BackboneToRows(nn.Module):
    """The frozen backbone: pictures (n, 3, h, w) -> rows (n, width), its feature maps one after another.

    Attributes:
        shapes: channels, height and width of each feature map.
        width: values in a row.
    """

    def __init__(self, network: Detector) -> None:
        super().__init__()
        self.trunk, self.levels = network.trunk, network.levels
        with torch.no_grad():
            feature_maps = backbone_feature_maps(self.trunk, example_input(network.shape, 1), self.levels)
        self.shapes = [feature_map.shape[1:] for feature_map in feature_maps]
        self.width = sum(map(math.prod, self.shapes))

    def forward(self, pictures: Tensor) -> Tensor:
        return activations_to_rows(backbone_feature_maps(self.trunk, pictures, self.levels), self.shapes)


class HeadFromRows(nn.Module):
    """Pyramid and head: rows of `BackboneToRows` -> the head's outputs for their pictures."""

    def __init__(self, network: Detector, shapes: Shapes) -> None:
        """`shapes`: channels, height and width of each feature map in a row."""
        super().__init__()
        self.network, self.shapes = network, shapes

    def forward(self, rows: Tensor, targets: Tensor | None = None) -> Tensor:
        feature_maps = [
            feature_map.contiguous(memory_format=torch.channels_last)
            for feature_map in rows_to_activations(rows, self.shapes)
        ]
        outputs: Tensor = self.network.head(self.network.apply_pyramid(feature_maps), targets)
        return outputs
