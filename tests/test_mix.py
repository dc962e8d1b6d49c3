"""Two pictures in one: the shares say how much of each there is."""

import torch
from torch import Tensor

from headstart.mix import Mix, mixer


def batch() -> tuple[Tensor, Tensor]:
    """Eight pictures of one colour each: picture n has the value n."""
    return torch.arange(8.0).reshape(8, 1, 1, 1).expand(8, 3, 16, 16).contiguous(), torch.arange(8)


def made(mix: Mix | None, *key: int) -> tuple[Tensor, Tensor]:
    assert mix is not None
    return mix(*batch(), *key)


def test_off_is_nothing() -> None:
    assert mixer(0, 0, 8) is None


def test_shares_are_what_is_in_the_picture() -> None:
    """A picture's mean is the mean of its parts' values, weighted by their shares: for both ways."""
    for mix in (mixer(1, 0, 8), mixer(0, 1, 8)):
        for step in range(20):
            pictures, shares = made(mix, 3, step)
            torch.testing.assert_close(pictures.mean((1, 2, 3)), shares @ torch.arange(8.0), atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(shares.sum(1), torch.ones(8))
            assert ((shares > 0).sum(1) <= 2).all()


def test_mixup_mixes_all_over_and_cutmix_a_piece() -> None:
    values = [{len(picture.unique()) for picture in made(mix, 1, 5)[0]} for mix in (mixer(1, 0, 8), mixer(0, 1, 8))]
    assert values == [{1}, {2}]


def test_with_both_some_batches_are_mixed_each_way() -> None:
    mix = mixer(1, 1, 8)
    ways = [max(len(picture.unique()) for picture in made(mix, 0, step)[0]) for step in range(20)]
    assert set(ways) == {1, 2}


def test_a_key_says_all_and_other_draws_are_left_alone() -> None:
    mix = mixer(0.4, 1, 8)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = made(mix, 3, 1)
    assert torch.equal(torch.rand(3), expected)
    again, other = made(mix, 3, 1), made(mix, 3, 2)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1])
