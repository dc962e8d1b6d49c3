"""Rebuilt networks are compared by the same pictures, and relative to the outputs' size."""

import torch

from headstart.engine.equivalence import example_input, outputs_agree


def test_the_example_is_the_same_at_every_call() -> None:
    torch.manual_seed(7)
    first = example_input(16)
    assert first.shape == (2, 3, 16, 16)
    assert torch.equal(first, example_input(16))
    assert not torch.equal(first[0], first[1])
    assert example_input(8, 5).shape == (5, 3, 8, 8)


def test_the_tolerance_is_a_share_of_the_largest_output() -> None:
    expected = torch.tensor([100.0, -1.0, 0.0])
    assert outputs_agree(expected, expected + 0.9, tolerance=0.01)
    assert not outputs_agree(expected, expected + 1.1, tolerance=0.01)
    assert not outputs_agree(expected, expected * torch.nan, tolerance=0.01)


def test_all_outputs_must_agree() -> None:
    one, other = torch.ones(3), torch.zeros(3, dtype=torch.bfloat16)
    assert outputs_agree((one, other), (one, other.float()), tolerance=1e-6)
    assert not outputs_agree((one, other), (one, other + 1), tolerance=1e-6)
