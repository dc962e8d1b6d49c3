"""Features of the examined pictures and of their augmented copies, from the feature cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from torch import Tensor

from headstart.base.arrays import Ints
from headstart.base.manifest import Image
from headstart.cross_validation.copies import copies_of_all
from headstart.cross_validation.folds import Examined
from headstart.engine.device import configure_torch
from headstart.features.embeddings import compute_embeddings
from headstart.features.frozen_backbone import FrozenBackbone
from headstart.models.pretrained import load_backbone, load_pretrained
from headstart.params.root import HeadParams, Params


@dataclass(frozen=True)
class FeatureRows:
    """Features of the examined pictures, and of their copies after them.

    Attributes:
        features: (m, f), fp32.
        owner: which picture each row is of, (m,); the first n rows are the n pictures themselves.
    """

    features: Tensor
    owner: Ints


class PictureFeatures:
    """What heads of any kind learn from; nothing is computed before it is asked for."""

    def __init__(self, examined: Examined, params: Params, root: Path) -> None:
        self._examined, self._params, self._root = examined, params, root
        self._backbones: dict[str, FrozenBackbone] = {}

    @cached_property
    def copies(self) -> list[list[Image]]:
        """The augmented copies of each picture."""
        return copies_of_all(self._examined.images, self._params, self._root)

    def rows(self, head: HeadParams) -> FeatureRows:
        """The features that a head takes, of the pictures and of their copies after them."""
        copies = [copy for of_picture in self.copies for copy in of_picture]
        numbers = np.arange(len(self._examined.images))
        owner = np.concatenate([numbers, np.repeat(numbers, [len(of_picture) for of_picture in self.copies])])
        return FeatureRows(self.embed([*self._examined.images, *copies], head), owner)

    def embed(self, images: Sequence[Image], head: HeadParams) -> Tensor:
        """The features that a head takes, (n, f), fp32."""
        return compute_embeddings(images, self._backbone(head), features=head.features)

    def key(self, head: HeadParams) -> list[object]:
        """What a head depends on beside pictures and training: its shape, and all that its features depend on."""
        backbone = self._backbone(head)
        return [head.model_dump(mode="json"), backbone.cache_folder("embeddings", *backbone.levels).name]

    def _backbone(self, head: HeadParams) -> FrozenBackbone:
        if head.features not in self._backbones:
            params = self._params
            model = params.model.model_copy(update={"head": head})
            spec, pretrained = load_pretrained("classify", model, list(self._examined.labels), self._root)
            compute = configure_torch(params.train, params.seed)
            build = partial(load_backbone, spec, pretrained)
            self._backbones[head.features] = FrozenBackbone.of(build, pretrained, spec, compute, self._root)
        return self._backbones[head.features]
