"""Which pictures an epoch shows, in which batches: drawn from a key alone, so that any epoch can be had at any time."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from headstart.params import FitParams


def batches_of(epoch: int, count: int, labels: Tensor | None, section: FitParams, seed: int) -> Sequence[Tensor]:
    """The rows of each batch of an epoch, as `section.sampling` wants them; `labels` as in `balanced`, if it can be."""
    if section.sampling == "balanced" and labels is not None:
        return balanced(labels, section.batch_size, seed, epoch)
    return order(count, section.batch_size, seed, epoch)


def order(count: int, batch_size: int, *key: int) -> tuple[Tensor, ...]:
    """Rows 0..count-1 shuffled by a key, in batches of almost equal size: batch norm cannot do with one row."""
    return torch.randperm(count, generator=generator(*key)).tensor_split(steps_of(count, batch_size))


def balanced(labels: Tensor, batch_size: int, *key: int) -> tuple[Tensor, ...]:
    """As many rows as `order` gives, every label as often (but for a remainder), some rows twice or not at all.

    Args:
        labels: (n,), the number of each row's label.
        batch_size: rows in a batch, about.
        key: other keys, other draws.
    """
    draws, total = generator(*key), len(labels)
    present = torch.bincount(labels).nonzero().flatten()
    present = present[torch.randperm(len(present), generator=draws)]  # another label has the remainder each time
    shares = torch.arange(total).tensor_split(len(present))
    rows = []
    for label, share in zip(present, shares, strict=True):
        own = torch.nonzero(labels == label).flatten()
        rounds = [own[torch.randperm(len(own), generator=draws)] for _ in range(-(-len(share) // len(own)))]
        rows.append(torch.cat(rounds)[: len(share)])
    mixed = torch.cat(rows)[torch.randperm(total, generator=draws)]
    return mixed.tensor_split(steps_of(total, batch_size))


def generator(*key: int) -> torch.Generator:
    """Random numbers that belong to a key."""
    return torch.Generator().manual_seed(seed_of(*key))


def seed_of(*key: int) -> int:
    """32 bits of a key's hash: torch looks at no more of a seed, so each must hold all of the key."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:4], "little")


def steps_of(count: int, batch_size: int) -> int:
    """Batches in an epoch: none of a single row, unless that is the size asked for."""
    most = count if batch_size == 1 else count // 2
    return max(1, min(round(count / batch_size), most))
