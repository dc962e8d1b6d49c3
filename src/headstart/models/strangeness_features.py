"""Features by which strangeness is measured: the backbone's last ones, and means over maps of two blocks before them.

Fine-tuning draws the last features of whatever picture towards those of the labels (neural collapse: Papyan, Han and
Donoho 2020); earlier blocks keep what tells pictures apart, and the earliest tell little but colour and texture.
`benchmarks/unknown.py` shows both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.engine.equivalence import example_input
from headstart.engine.input_spec import ImageSize
from headstart.models.block_features import block_features, find_levels
from headstart.models.classifier import Classifier

DEPTHS = (2 / 3, 1)  # of the blocks looked at, as a share of those that `find_levels` names


@dataclass(frozen=True)
class FeaturePlan:
    """Which features.

    Attributes:
        levels: blocks whose features are computed, as in ModelSpec: those that the head takes, else those looked at.
        parts: first column and the one after the last of each part that is looked at, among the last features and,
            for each level, means and maxima.
    """

    levels: tuple[str, ...]
    parts: tuple[tuple[int, int], ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the parts."""
        return tuple(stop - start for start, stop in self.parts)


@torch.no_grad()
def plan_features(network: Classifier, size: ImageSize) -> FeaturePlan:
    """The plan for a classifier in eval mode that takes pictures of that size, in pixels."""
    picture = example_input(size, 1)
    own = network.trunk(picture).shape[1]
    looked_at = _pick(network.levels or find_levels(network.trunk, size)[0])
    levels = network.levels or tuple(looked_at)
    parts, start = [(0, own)], own
    for level in levels:
        width = (block_features(network.trunk, picture, [level]).shape[1] - own) // 2
        if level in looked_at:
            parts.append((start, start + width))
        start += 2 * width
    return FeaturePlan(levels, tuple(parts))


def _pick(levels: Sequence[str]) -> list[str]:
    """Those at DEPTHS; none of none."""
    numbers = sorted({max(1, round(depth * len(levels))) - 1 for depth in DEPTHS})
    return [levels[number] for number in numbers] if levels else []


class ClassifierWithFeatures(Classifier):
    """A classifier that gives the features of a plan beside its logits."""

    def __init__(self, network: Classifier, plan: FeaturePlan) -> None:
        super().__init__(network.trunk, network.head, network.levels)
        self.plan = plan

    def logits_and_features(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Normalized pictures -> logits (n, labels), to the bit those of the classifier, and features (n, f)."""
        levels, parts = self.plan.levels, self.plan.parts
        pooled = block_features(self.trunk, pictures, levels) if levels else self.trunk(pictures).float()
        logits = self.head(pooled if self.levels else pooled[:, : parts[0][1]])
        return logits, torch.cat([pooled[:, start:stop] for start, stop in parts], 1)
