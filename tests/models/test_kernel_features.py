"""RBF kernel features: the formula, and gradients through them to the backbone but not into the kernel."""

import torch

from headstart.models import classifier
from headstart.models.kernel_features import KernelFeatures, rbf_kernel
from headstart.params.root import HeadParams


def test_the_kernel_is_the_exponential_of_the_squared_distance() -> None:
    rows, landmarks = torch.randn(5, 3), torch.randn(4, 3)
    torch.testing.assert_close(rbf_kernel(rows, landmarks), torch.exp(-(torch.cdist(rows, landmarks) ** 2)))
    assert rbf_kernel(rows, rows).diagonal().allclose(torch.ones(5))


def test_features_are_projected_compared_with_the_landmarks_and_whitened() -> None:
    projection, offset, landmarks, whitening = (
        torch.randn(*shape, dtype=torch.float64) for shape in ((6, 3), (3,), (4, 3), (4, 2))
    )
    module = KernelFeatures.of(projection, offset, landmarks, whitening)
    features = torch.randn(5, 6)
    distances = torch.cdist(features.double() @ projection + offset, landmarks)
    torch.testing.assert_close(module(features).double(), torch.exp(-(distances**2)) @ whitening, atol=1e-5, rtol=1e-4)
    assert {value.dtype for value in module.state_dict().values()} == {torch.float32}


def test_gradients_reach_the_features_and_the_linear_layer_and_leave_the_kernel() -> None:
    kernel = KernelFeatures.of(torch.randn(6, 3), torch.randn(3), torch.randn(4, 3), torch.randn(4, 2))
    head = classifier.create_head(6, 3, HeadParams(kind="kernel", dropout=0), kernel)
    assert [name for name, _ in head.named_parameters()] == ["2.weight", "2.bias"]
    features = torch.randn(5, 6, requires_grad=True)
    head(features).square().sum().backward()
    assert features.grad is not None
    assert features.grad.abs().sum() > 0
