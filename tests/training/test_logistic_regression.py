"""The solver against scikit-learn's logistic regression."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from headstart.training.logistic_regression import LinearModel, cross_entropy, solve


def make_data(labels: int, rows: int = 300, width: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(labels)
    features = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    scores = features @ torch.randn(width, labels, generator=generator, dtype=torch.float64)
    return features, (scores + 3 * torch.randn(scores.shape, generator=generator, dtype=torch.float64)).argmax(1)


@pytest.mark.parametrize("weight_decay", [1.0, 0.01, 1e-4])
def test_the_optimum_of_several_labels_is_scikit_learns(weight_decay: float) -> None:
    features, labels = make_data(3)
    found = solve(features, torch.eye(3, dtype=torch.float64)[labels], weight_decay)
    # scikit-learn: sum of the losses + |w|^2 / 2C
    oracle = LogisticRegression(C=1 / (len(labels) * weight_decay), tol=1e-10, max_iter=5000)
    oracle.fit(features.numpy(), labels.numpy())
    np.testing.assert_allclose(found.weight.numpy(), oracle.coef_, atol=1e-4)
    expected = oracle.predict_proba(features.numpy())
    np.testing.assert_allclose(found.logits(features).softmax(1).numpy(), expected, atol=1e-4)


def test_the_optimum_of_two_labels_is_scikit_learns() -> None:
    """Two logits share the penalty of scikit-learn's single one: half of its weight each, so half of its sum."""
    features, labels = make_data(2)
    found = solve(features, torch.eye(2, dtype=torch.float64)[labels], 0.02)
    oracle = LogisticRegression(C=1 / (len(labels) * 0.01), tol=1e-10, max_iter=5000)
    oracle.fit(features.numpy(), labels.numpy())
    np.testing.assert_allclose((found.weight[1] - found.weight[0]).numpy(), oracle.coef_[0], atol=1e-4)
    np.testing.assert_allclose(
        found.logits(features).softmax(1)[:, 1].numpy(), oracle.predict_proba(features)[:, 1], atol=1e-4
    )


def test_soft_and_weighted_targets_are_rows_of_scikit_learns_sample_weight() -> None:
    features, labels = make_data(3)
    confidence = torch.linspace(0.6, 1, len(labels), dtype=torch.float64)[:, None]
    targets = torch.eye(3, dtype=torch.float64)[labels] * confidence + (1 - confidence) / 3
    targets *= torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)
    targets *= len(labels) / targets.sum()
    found = solve(features, targets, 0.01)
    oracle = LogisticRegression(C=1 / (len(labels) * 0.01), tol=1e-10, max_iter=5000)
    oracle.fit(features.repeat(3, 1).numpy(), np.repeat(np.arange(3), len(labels)), targets.T.reshape(-1).numpy())
    np.testing.assert_allclose(found.weight.numpy(), oracle.coef_, atol=1e-4)


def test_the_start_and_the_scale_of_a_feature_change_nothing_but_the_time() -> None:
    features, labels = make_data(3)
    targets = torch.eye(3, dtype=torch.float64)[labels]
    cold, warm = solve(features, targets, 0.01), solve(features, targets, 0.01, solve(features, targets, 1.0))
    torch.testing.assert_close(cold.weight, warm.weight, atol=1e-4, rtol=0)
    again = solve(features, targets, 0.01)
    assert torch.equal(cold.weight, again.weight)
    assert torch.equal(cold.bias, again.bias)


def test_cross_entropy_is_weighted_by_the_targets() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    targets = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    each = -logits.log_softmax(1)
    assert cross_entropy(logits, targets) == pytest.approx(float((2 * each[0, 0] + each[1, 1]) / 3))
    model = LinearModel(torch.eye(2, dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert model.logits(torch.tensor([[3.0, 4.0]])).tolist() == [[4.0, 4.0]]
