"""Whether fine-tuning is better than the head alone beyond the noise of val: the one-standard-error rule.

Breiman, Friedman, Olshen and Stone, Classification and Regression Trees, 1984: of two models the simpler one, unless
the other is better by more than one standard error; here of the paired change of the loss on val.
"""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from headstart.base.arrays import Ints


@dataclass(frozen=True)
class ValChange:
    """The val loss of the epoch where it was lowest, less the head-only model's.

    Attributes:
        epoch: its number.
        value: mean over the val pictures.
        error: its standard error; infinite where pictures are all of one unit.
        pictures: of val.
    """

    epoch: int
    value: float
    error: float
    pictures: int

    @classmethod
    def of(cls, epoch: int, before: Tensor, after: Tensor, units: Ints) -> "ValChange":
        """The mean of the paired changes, with the standard error of a mean whose independent draws are units.

        Args:
            epoch: as above.
            before: each picture's loss by the head-only model, (n,).
            after: its loss by the other one.
            units: the number of each picture's unit, (n,), from 0.
        """
        change = np.asarray((after.double() - before.double()).cpu())
        sums = np.bincount(units, change - change.mean())
        count = len(sums)
        error = math.sqrt(count / (count - 1) * float((sums**2).sum())) / len(change) if count > 1 else math.inf
        return cls(epoch, float(change.mean()), error, len(change))

    @property
    def is_gain(self) -> bool:
        """Whether the loss is lower by more than one standard error."""
        return self.value + self.error < 0

    def to_metrics(self) -> dict[str, float]:
        """The fields of metrics.json."""
        numbers = {"": self.value, **({"error": self.error} if math.isfinite(self.error) else {})}
        numbers |= {"epoch": self.epoch, "pictures": self.pictures}
        return {f"val_loss_change_{name}".rstrip("_"): value for name, value in numbers.items()}
