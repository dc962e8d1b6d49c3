"""Heads that are fitted: the optimum, the same bits, balanced labels, and a kernel where no line will do."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from headstart.models.kernel_features import KernelFeatures
from headstart.params.root import HeadParams
from headstart.params.training import TrainHeadParams
from headstart.training.head_fit import fit, fit_head

LINEAR, KERNEL = HeadParams(), HeadParams(kind="kernel")


def make_data(rows: int = 400, width: int = 12, labels: int = 3) -> tuple[Tensor, Tensor]:
    """Features of different scales, one of them constant, and noisy targets."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(rows, width, generator=generator) * torch.logspace(-2, 2, width) + 5
    features[:, 3] = 7
    scores = (features - features.mean(0)) / (features.std(0) + 1e-6) @ torch.randn(width, labels, generator=generator)
    numbers = (scores + 2 * torch.randn(rows, labels, generator=generator)).argmax(1)
    return features, torch.eye(labels)[numbers]


def rings(rows: int = 300) -> tuple[Tensor, Tensor]:
    """Label 1 around label 0: no line separates them."""
    generator = torch.Generator().manual_seed(1)
    angle, inside = torch.rand(rows, generator=generator) * 2 * torch.pi, torch.arange(rows) % 2
    radius = 1 + 2 * inside + 0.3 * torch.randn(rows, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1), torch.eye(2)[inside]


def test_a_linear_head_is_scikit_learns_optimum_on_standardised_features() -> None:
    features, targets = make_data()
    head = fit_head(features, targets, LINEAR, TrainHeadParams(weight_decay=0.003), np.arange(400), 0)
    assert [type(layer) for layer in head.children()] == [nn.Dropout, nn.Linear]
    assert not head.training
    standardised = StandardScaler().fit_transform(features.double().numpy())
    oracle = LogisticRegression(C=1 / (400 * 0.003), tol=1e-10, max_iter=5000)
    oracle.fit(standardised, targets.argmax(1).numpy())
    with torch.no_grad():
        found = head(features).softmax(1).numpy()
    np.testing.assert_allclose(found, oracle.predict_proba(standardised), atol=1e-4)


@pytest.mark.parametrize("params", [LINEAR, KERNEL])
def test_the_same_bits_whatever_the_threads_and_random_states_are(params: HeadParams) -> None:
    features, targets = make_data()
    units = np.arange(400) // 2
    states = []
    for threads in (1, 2):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        torch.manual_seed(threads)
        states.append(fit_head(features, targets, params, TrainHeadParams(), units, 5).state_dict())
        assert torch.get_num_threads() == threads
        torch.set_num_threads(before)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("section", [{"class_weights": "balanced"}, {"sampling": "balanced"}])
def test_balanced_labels_weigh_the_same(section: dict[str, str]) -> None:
    """Constant features: the head's probabilities are the shares of the labels' weights."""
    targets = torch.eye(2)[torch.tensor([0] * 30 + [1] * 10)]
    shares = []
    for chosen in (TrainHeadParams(), TrainHeadParams.model_validate(section)):
        head = fit_head(torch.ones(40, 3), targets, LINEAR, chosen, np.arange(40), 0)
        with torch.no_grad():
            shares.append(head(torch.ones(1, 3)).softmax(1)[0, 0].item())
    assert shares == pytest.approx([0.75, 0.5], abs=1e-4)


def test_the_decay_of_params_yaml_is_used_as_it_is() -> None:
    features, targets = make_data()
    found = fit(features, targets, LINEAR, TrainHeadParams(weight_decay=0.5), np.arange(400), 0)
    assert found.weight_decay == 0.5
    assert found.bandwidth is None


def test_a_kernel_separates_rings() -> None:
    features, targets = rings()
    train, test = slice(200), slice(200, None)
    accuracy = {}
    for params in (LINEAR, KERNEL):
        head = fit_head(features[train], targets[train], params, TrainHeadParams(), np.arange(200), 0)
        with torch.no_grad():
            accuracy[params.kind] = (head(features[test]).argmax(1) == targets[test].argmax(1)).float().mean().item()
    assert accuracy["linear"] < 0.7
    assert accuracy["kernel"] > 0.97


def test_a_kernel_head_is_kernel_logistic_regression() -> None:
    """With every picture a landmark and nothing cut off it is logistic regression in the space of the RBF kernel."""
    features, targets = rings(60)
    found = fit(features, targets, KERNEL, TrainHeadParams(weight_decay=0.01), np.arange(60), 0)
    kernel = found.head[0]
    assert isinstance(kernel, KernelFeatures)
    assert found.bandwidth is not None
    standardised = (features.double() - features.double().mean(0)) / features.double().std(0, unbiased=False)
    bandwidth = found.bandwidth * torch.pdist(standardised).median()
    gram = torch.exp(-(torch.cdist(standardised, standardised) ** 2) / (2 * bandwidth**2))
    with torch.no_grad():
        inner = kernel(features) @ kernel(features).T
        torch.testing.assert_close(inner.double(), gram, atol=5e-3, rtol=0)
        logits = found.head(features)
    values, vectors = torch.linalg.eigh(gram)
    rows = vectors * values.clamp(min=0).sqrt()
    oracle = LogisticRegression(C=1 / (60 * 0.005), tol=1e-10, max_iter=5000)
    oracle.fit(rows.numpy(), targets.argmax(1).numpy())
    np.testing.assert_allclose(logits.softmax(1)[:, 1].numpy(), oracle.predict_proba(rows.numpy())[:, 1], atol=2e-3)
