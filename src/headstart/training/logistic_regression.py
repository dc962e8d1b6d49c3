"""Multinomial logistic regression with an L2 penalty, solved to its optimum: a convex problem, one answer."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from headstart.base.arrays import Floats

MAX_ITERATIONS = 1000
GRADIENT_TOLERANCE = 1e-6  # the largest entry of the gradient at the optimum, in units of curvature 1


class LinearModel(NamedTuple):
    """Logits are features @ weight.T + bias; both in float64."""

    weight: Tensor  # (labels, f)
    bias: Tensor  # (labels,)

    def logits(self, features: Tensor) -> Tensor:
        """(n, f) -> (n, labels), float64; the product is taken in the features' precision."""
        return (features @ self.weight.T.to(features.dtype)).double() + self.bias


def solve(
    features: Tensor,
    targets: Tensor,
    weight_decay: float,
    start: LinearModel | None = None,
    tolerance: float = GRADIENT_TOLERANCE,
) -> LinearModel:
    """The minimum of the mean cross entropy plus weight_decay / 2 times the sum of all squared weights.

    L-BFGS (Liu and Nocedal 1989) as in SciPy, in float64. The bias has no penalty. As scikit-learn's
    LogisticRegression with C = 1 / (n * weight_decay).

    Args:
        features: (n, f), float64; or float32, where the tolerance is no smaller than 1e-4.
        targets: share of each label (n, labels), float64. Rows are weighted by their sum; the mean of all sums is 1.
        weight_decay: 0 or more.
        start: where to begin; None: at zero.
        tolerance: the largest entry of the gradient at which it ends.
    """
    from scipy.optimize import minimize

    count, width, labels = *features.shape, targets.shape[1]
    row_weights = targets.sum(1, keepdim=True)
    # In these units the curvature is about 1 in every direction, so that steps are not ruled by the flattest feature.
    unit = torch.cat([features.square().mean(0).double(), torch.ones(1, dtype=torch.float64)]) / 4
    unit[:-1] += weight_decay
    unit = unit.clamp(min=1e-12).rsqrt()
    first = torch.zeros(labels, width + 1, dtype=torch.float64)
    if start is not None:
        first = torch.cat([start.weight, start.bias[:, None]], 1) / unit

    def value_and_gradient(flat: Floats) -> tuple[float, Floats]:
        parameters = torch.from_numpy(flat).view(labels, width + 1) * unit
        model = LinearModel(parameters[:, :width], parameters[:, width])
        log_probabilities = model.logits(features).log_softmax(1)
        loss = -(targets * log_probabilities).sum() / count + weight_decay / 2 * model.weight.square().sum()
        slope = (log_probabilities.exp() * row_weights - targets) / count
        of_weight = (slope.T.to(features.dtype) @ features).double() + weight_decay * model.weight
        gradient = torch.cat([of_weight, slope.sum(0)[:, None]], 1)
        return loss.item(), (gradient * unit).reshape(-1).numpy()

    result = minimize(
        value_and_gradient,
        np.ascontiguousarray(first.reshape(-1).numpy()),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": MAX_ITERATIONS, "gtol": tolerance, "ftol": 0, "maxcor": 20},
    )
    solution = torch.from_numpy(result.x).view(labels, width + 1) * unit
    return LinearModel(solution[:, :width].clone(), solution[:, width].clone())


def cross_entropy(logits: Tensor, targets: Tensor) -> float:
    """Mean over the rows, weighted by the sums of their targets."""
    return float(-(targets * logits.log_softmax(1)).sum() / targets.sum())
