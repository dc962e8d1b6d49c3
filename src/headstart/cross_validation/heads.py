"""The head in each fold: fitted on features of the other folds' pictures and their copies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from headstart.base.arrays import Bools
from headstart.cross_validation.folds import Examined
from headstart.cross_validation.picture_features import FeatureRows
from headstart.models import classifier
from headstart.params.root import HeadParams
from headstart.params.training import TrainHeadParams
from headstart.training.head_fit import fit_head

# What computes an answer from features, whose own key is beside it: part of the cache's key.
HEAD_CODE = (
    "headstart.augment",
    "headstart.models",
    "headstart.training",
    *(f"headstart.cross_validation.{name}" for name in ("copies", "folds", "heads", "picture_features")),
)


@dataclass(frozen=True)
class FoldHeads:
    """A head that is solved, `linear` or `kernel`, fitted for each fold on the pictures that the fold learns from.

    Attributes:
        examined: the pictures.
        rows: returns their features; called once, and only if a fold is to be answered.
        learning: for each fold which pictures it learns from, (n,).
        params: the section `model.head`.
        section: the section `train_head`.
        seed: of the fit.
    """

    examined: Examined
    rows: Callable[[], FeatureRows]
    learning: Sequence[Bools]
    params: HeadParams
    section: TrainHeadParams
    seed: int

    @cached_property
    def _embedded(self) -> FeatureRows:
        return self.rows()

    @cached_property
    def _targets(self) -> Tensor:
        return classifier.soft_targets(self.examined.images, self.examined.labels, self.section.label_smoothing)

    def fit(self, fold: int) -> nn.Module:
        """The head that examines a fold: features (n, f) -> logits (n, labels)."""
        examined, owner = self.examined, self._embedded.owner
        chosen = np.flatnonzero(self.learning[fold][owner])
        units = examined.units[owner[chosen]]
        assert not np.isin(units, examined.units[examined.fold == fold]).any(), "a unit on both sides"
        return fit_head(
            self._embedded.features[torch.from_numpy(chosen)],
            self._targets[torch.from_numpy(owner[chosen])],
            self.params,
            self.section,
            units,
            self.seed,
        )

    @torch.no_grad()
    def answer(self, fold: int) -> Tensor:
        """Logits of the fold's pictures, (pictures, labels)."""
        inside = torch.from_numpy(np.flatnonzero(self.examined.fold == fold))
        logits: Tensor = self.fit(fold)(self._embedded.features[inside])
        return logits
