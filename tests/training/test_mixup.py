"""mixup and CutMix: the targets are the shares of each label in the mixed picture."""

import torch
from torch import Tensor

from headstart.training.batches import MixupFunction
from headstart.training.mixup import make_mixup


def make_batch() -> tuple[Tensor, Tensor]:
    """Eight pictures of one colour each: picture n has the value n."""
    return torch.arange(8.0).reshape(8, 1, 1, 1).expand(8, 3, 16, 16).contiguous(), torch.arange(8)


def mixed(mix: MixupFunction | None, *key: int) -> tuple[Tensor, Tensor]:
    assert mix is not None
    return mix(*make_batch(), *key)


def test_off_is_none() -> None:
    assert make_mixup(0, 0, 8) is None


def test_shares_are_those_of_the_picture() -> None:
    """A picture's mean is the mean of its parts' values, weighted by their shares: with both methods."""
    for mix in (make_mixup(1, 0, 8), make_mixup(0, 1, 8)):
        for step in range(20):
            pictures, shares = mixed(mix, 3, step)
            torch.testing.assert_close(pictures.mean((1, 2, 3)), shares @ torch.arange(8.0), atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(shares.sum(1), torch.ones(8))
            assert ((shares > 0).sum(1) <= 2).all()


def test_mixup_mixes_all_pixels_and_cutmix_a_rectangle() -> None:
    values = [
        {len(picture.unique()) for picture in mixed(mix, 1, 5)[0]} for mix in (make_mixup(1, 0, 8), make_mixup(0, 1, 8))
    ]
    assert values == [{1}, {2}]


def test_with_both_on_each_method_mixes_some_batches() -> None:
    mix = make_mixup(1, 1, 8)
    methods = [max(len(picture.unique()) for picture in mixed(mix, 0, step)[0]) for step in range(20)]
    assert set(methods) == {1, 2}


def test_the_key_determines_all_and_the_global_random_state_stays() -> None:
    mix = make_mixup(0.4, 1, 8)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = mixed(mix, 3, 1)
    assert torch.equal(torch.rand(3), expected)
    again, other = mixed(mix, 3, 1), mixed(mix, 3, 2)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1])
