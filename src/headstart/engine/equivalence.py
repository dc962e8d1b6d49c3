"""Proof by example that a rebuilt network (folded, fused) computes what the original does."""

from typing import Any

import torch
from torch import Tensor

from headstart.engine.input_spec import ImageSize, to_shape


def example_input(size: ImageSize, count: int = 2) -> Tensor:
    """Random pictures (count, 3, height, width), standard normal, the same at every call."""
    return torch.randn(count, 3, *to_shape(size), generator=torch.Generator().manual_seed(0))


def outputs_agree(expected: Any, outputs: Any, tolerance: float) -> bool:
    """Whether outputs differ from the expected ones by at most `tolerance` of the largest expected absolute value.

    Args:
        expected: what the original network returns, a tensor or a tuple of tensors.
        outputs: the same of the rebuilt network.
        tolerance: relative to each expected tensor's largest absolute value.
    """
    for one, other in zip(_as_float_list(expected), _as_float_list(outputs), strict=True):
        scale = one.abs().max().clamp(min=1e-6)
        if not torch.allclose(other / scale, one / scale, atol=tolerance):
            return False
    return True


def _as_float_list(value: Any) -> list[Tensor]:
    return [tensor.float() for tensor in (value if isinstance(value, tuple) else (value,))]
