"""A head that is fitted: a convex problem on cached features, solved to its end, with the same bits every time."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headstart.base.arrays import Ints
from headstart.base.threads import one_torch_thread
from headstart.models import classifier
from headstart.models.kernel_features import KernelFeatures
from headstart.params.root import HeadParams
from headstart.params.training import TrainHeadParams
from headstart.training.kernel_fit import BANDWIDTHS, Components, Kernel
from headstart.training.logistic_regression import LinearModel, solve
from headstart.training.principal_components import principal_axes
from headstart.training.weight_decay_search import choose_weight_decay

SEARCH_COMPONENTS = 512  # principal components on which the weight decay of a linear head is chosen: faster, and enough


@dataclass(frozen=True)
class FittedHead:
    """A fitted head and what was chosen for it.

    Attributes:
        head: features (n, f) -> logits (n, labels), fp32, in eval mode.
        weight_decay: given, or chosen by cross-validation.
        bandwidth: of a kernel, times the median distance of two pictures; None: no kernel.
    """

    head: nn.Sequential
    weight_decay: float
    bandwidth: float | None = None


@dataclass(frozen=True)
class _Problem:
    """What is solved: targets (n, labels) with the labels' weights in them, and how the weight decay is chosen."""

    targets: Tensor
    weight_decay: float | None  # None: by cross-validation
    units: Ints
    seed: int

    def search(self, features: Tensor) -> tuple[float, float]:
        """The weight decay for these features, and its cross-validated loss."""
        return choose_weight_decay(features, self.targets, self.units, self.seed, self.weight_decay)


def fit_head(
    features: Tensor, targets: Tensor, params: HeadParams, section: TrainHeadParams, units: Ints, seed: int
) -> nn.Module:
    """The head on these features: `fit` without what was chosen on the way; arguments as there."""
    return fit(features, targets, params, section, units, seed).head


def fit(
    features: Tensor, targets: Tensor, params: HeadParams, section: TrainHeadParams, units: Ints, seed: int
) -> FittedHead:
    """Fit a head of kind linear or kernel.

    Args:
        features: (n, f), fp32.
        targets: share of each label (n, labels), as `classifier.soft_targets` returns them.
        params: the section `model.head`.
        section: the section `train_head`; of it weight_decay, class_weights and sampling have an effect.
        units: number of each row's unit (n,); the folds of the cross-validation keep them together. A stored copy has
            the unit of its original.
        seed: of the folds and the landmarks.
    """
    assert params.is_fitted, "hidden layers train in epochs"
    with one_torch_thread():  # sums are rounded by how many threads share them
        mean, scale = _mean_and_scale(features)
        standardised = (features.double() - mean) / scale
        weight_decay = None if section.weight_decay == "auto" else section.weight_decay
        problem = _Problem(targets.double() * _label_weights(targets, section), weight_decay, units, seed)
        fit_kind = _fit_linear if params.kind == "linear" else _fit_kernel
        return fit_kind(standardised, mean, scale, problem, params)


def _fit_linear(standardised: Tensor, mean: Tensor, scale: Tensor, problem: _Problem, params: HeadParams) -> FittedHead:
    weight_decay = problem.weight_decay
    if weight_decay is None:
        axes = principal_axes(standardised, SEARCH_COMPONENTS, problem.seed)
        weight_decay, _ = problem.search(standardised @ axes)
    model = solve(standardised, problem.targets, weight_decay)
    weight = model.weight / scale
    head = classifier.create_head(standardised.shape[1], problem.targets.shape[1], params)
    return FittedHead(_with_linear(head, LinearModel(weight, model.bias - weight @ mean)), weight_decay)


def _fit_kernel(standardised: Tensor, mean: Tensor, scale: Tensor, problem: _Problem, params: HeadParams) -> FittedHead:
    components = Components.of(standardised, problem.seed)
    found: list[tuple[float, float, float]] = []  # loss, bandwidth, weight decay
    for bandwidth in BANDWIDTHS:
        weight_decay, loss = problem.search(Kernel.of(components, bandwidth).rows)
        found.append((loss, bandwidth, weight_decay))
    _, bandwidth, weight_decay = min(found)
    kernel = Kernel.of(components, bandwidth)
    model = solve(kernel.rows, problem.targets, weight_decay)
    projection = components.axes / scale[:, None] * kernel.scale
    landmarks = components.rows[components.landmarks] * kernel.scale
    features = KernelFeatures.of(projection, -mean @ projection, landmarks, kernel.whitening)
    head = classifier.create_head(len(mean), problem.targets.shape[1], params, features)
    return FittedHead(_with_linear(head, model), weight_decay, bandwidth)


def _with_linear(head: nn.Sequential, model: LinearModel) -> nn.Sequential:
    linear = head[-1]
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        linear.weight.copy_(model.weight)
        linear.bias.copy_(model.bias)
    return head.eval()


def _label_weights(targets: Tensor, section: TrainHeadParams) -> Tensor:
    """Weight per label (labels,), float64; balanced: each label's targets sum to the same. Their mean over rows is 1.

    `sampling: balanced` is, in expectation, the same.
    """
    if section.class_weights == "none" and section.sampling == "shuffled":
        return torch.ones(targets.shape[1], dtype=torch.float64)
    totals = targets.double().sum(0)
    return len(targets) / ((totals > 0).sum() * totals.clamp(min=1e-9)) * (totals > 0)


def _mean_and_scale(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature (f,), float64; a constant one has scale 1."""
    mean = features.double().mean(0)
    scale = (features.double() - mean).square().mean(0).sqrt()
    return mean, torch.where(scale > 1e-6 * (1 + mean.abs()), scale, 1.0)
