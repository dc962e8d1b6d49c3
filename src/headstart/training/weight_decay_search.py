"""The weight decay of a fitted head, by cross-validation on the training features."""

import numpy as np
import torch
from torch import Tensor

from headstart.base.arrays import Ints
from headstart.training.logistic_regression import LinearModel, solve

FOLDS = 5
# From strong to weak: each fit starts from the one before. Of features of unit variance, beside the mean loss.
WEIGHT_DECAYS = tuple(float(f"{10**exponent:.2g}") for exponent in np.arange(0.5, -6.1, -0.5))
SEARCH_TOLERANCE = 1e-3  # of the gradient: the order of the losses needs no more
UNSEARCHED = 0.01  # where there are fewer than two units


def choose_weight_decay(
    features: Tensor, targets: Tensor, units: Ints, seed: int, given: float | None = None
) -> tuple[float, float]:
    """The weight decay of the lowest cross-validated log loss, and that loss; infinite where nothing can be compared.

    Arguments as in `head_fit.fit` and `solve`. Weaker ones are not tried once the loss has risen twice; `given` is the
    only one tried.
    """
    folds = assign_folds(targets.argmax(1).numpy(), units, FOLDS, seed)
    if folds.max() == 0:
        return given if given is not None else UNSEARCHED, float("inf")
    features = features.float()
    parts = [_Part.of(features, targets, torch.from_numpy(folds == fold)) for fold in range(folds.max() + 1)]
    best, best_loss, worse = UNSEARCHED, float("inf"), 0
    for weight_decay in WEIGHT_DECAYS if given is None else (given,):
        loss = sum(part.loss(weight_decay) for part in parts) / sum(part.total for part in parts)
        worse = 0 if loss < best_loss else worse + 1
        if not worse:
            best, best_loss = weight_decay, loss
        elif worse > 1:
            break
    return best, best_loss


def assign_folds(labels: Ints, units: Ints, folds: int, seed: int) -> Ints:
    """The fold of each row (n,), from 0; rows of one unit are in the same one, and labels are spread evenly.

    Args:
        labels: number of each row's label (n,).
        units: number of each row's unit (n,).
        folds: how many at most; there are no more than units.
        seed: of the order in which units are dealt out.
    """
    names, rows = np.unique(units, return_inverse=True)
    counts = np.zeros((len(names), labels.max() + 1))  # of each label in each unit
    np.add.at(counts, (rows, labels), 1)
    shares = counts / counts.sum(0).clip(min=1)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-counts.sum(1)[order], kind="stable")]  # large ones first: small ones fill the gaps
    in_fold, fold_of = np.zeros((min(folds, len(names)), counts.shape[1])), np.zeros(len(names), np.int64)
    for unit in order:
        # Where its labels are the rarest so far; of equals, the fold with the fewest rows.
        fold_of[unit] = np.lexsort((in_fold.sum(1), np.round(in_fold @ shares[unit], 9)))[0]
        in_fold[fold_of[unit]] += counts[unit]
    return fold_of[rows]


class _Part:
    """One fold: the rows that it is scored on and the others, and the last model, from which the next fit starts."""

    def __init__(self, fit: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor]) -> None:
        self._fit, self._held_out = fit, held_out
        self._model: LinearModel | None = None
        self.total = float(held_out[1].sum())

    @classmethod
    def of(cls, features: Tensor, targets: Tensor, held_out: Tensor) -> "_Part":
        """`held_out` (n,) is true where a row is scored. A label that no other row has is left out of the score."""
        known = targets[~held_out].sum(0) > 0
        rows = held_out & known[targets.argmax(1)]
        return cls((features[~held_out], targets[~held_out]), (features[rows], targets[rows]))

    def loss(self, weight_decay: float) -> float:
        """Sum of the cross entropy over the held-out rows."""
        self._model = solve(*self._fit, weight_decay, self._model, SEARCH_TOLERANCE)
        features, targets = self._held_out
        return float(-(targets * self._model.logits(features).log_softmax(1)).sum())
