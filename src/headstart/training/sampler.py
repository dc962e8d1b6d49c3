"""Samplers: the rows of each batch of an epoch. Random numbers come from a key: any batch can be made at any time."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.base import distributed
from headstart.base.errors import UserError
from headstart.params.training import TrainingStageParams


@dataclass(frozen=True)
class BatchSampler:
    """The rows of every batch of every epoch of a training.

    Attributes:
        count: rows of the training set.
        labels: class number of each row, (count,), for `sampling: balanced`; None: rows are always shuffled.
        section: batch size and sampling.
        seed: of the whole training.
        trains_batch_norm: whether the network has a batch norm that trains: no batch may then have a single row.

    Raises:
        UserError: there is but one row, and a batch norm trains.
    """

    count: int
    labels: Tensor | None
    section: TrainingStageParams
    seed: int
    trains_batch_norm: bool = False

    def __post_init__(self) -> None:
        if self.trains_batch_norm and self.count == 1:
            raise UserError(
                "stages/split/train.json: one training picture, and a batch norm that trains needs two; add pictures, "
                "or give model.head.batch_norm: false and fine_tune.batch_norm: fixed"
            )

    @property
    def sizes(self) -> list[int]:
        """Rows of each batch of an epoch."""
        return batch_sizes(self.count, self.section.batch_size, single_row=not self.trains_batch_norm)

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return len(self.sizes)

    def rows(self, epoch: int) -> Sequence[Tensor]:
        """The rows of each batch of an epoch (from 1)."""
        if self.section.sampling == "balanced" and self.labels is not None:
            return balanced_rows(self.labels, self.sizes, self.seed, epoch)
        return shuffled_rows(self.count, self.sizes, self.seed, epoch)

    def rank_rows(self, epoch: int, first: int, stage: str) -> list[Tensor]:
        """This rank's rows of an epoch's batches, from batch number `first` (from 0) on.

        Raises:
            UserError: a batch of this stage has fewer rows than there are processes.
        """
        return [distributed.rank_rows(rows, stage) for rows in self.rows(epoch)[first:]]


def batch_sizes(count: int, batch_size: int, *, single_row: bool = True) -> list[int]:
    """Rows of each batch of an epoch: `batch_size`, and what is left in the last one.

    A last batch of a single row, or of fewer rows than there are processes, shares evenly with the batch before it.

    Args:
        count: rows of the training set.
        batch_size: the most rows of a batch.
        single_row: whether a batch may have a single row. If not, and batches of two leave one row over, that row (in
            each epoch another) is left out.
    """
    full, rest = divmod(count, batch_size)
    sizes = [batch_size] * full + [rest] * (rest > 0)
    if full and 0 < rest < max(2, distributed.get_world_size()):
        sizes[-2:] = [(batch_size + rest + 1) // 2, (batch_size + rest) // 2]
    if not single_row and len(sizes) > 1 and sizes[-1] == 1:
        sizes.pop()
    return sizes


def shuffled_rows(count: int, sizes: Sequence[int], *key: int) -> tuple[Tensor, ...]:
    """Rows 0..count-1 in random order, in batches of these sizes."""
    return torch.split(torch.randperm(count, generator=keyed_generator(*key))[: sum(sizes)], list(sizes))


def balanced_rows(labels: Tensor, sizes: Sequence[int], *key: int) -> tuple[Tensor, ...]:
    """As many rows as `shuffled_rows`, equally many of each label (but for a remainder): some rows repeat, or are out.

    Args:
        labels: class number of each row, (n,).
        sizes: rows of each batch.
        key: determines the random numbers.
    """
    generator, total = keyed_generator(*key), len(labels)
    present = torch.bincount(labels).nonzero().flatten()
    present = present[torch.randperm(len(present), generator=generator)]  # other labels get the remainder each time
    shares = torch.arange(total).tensor_split(len(present))
    rows = []
    for label, share in zip(present, shares, strict=True):
        own = torch.nonzero(labels == label).flatten()
        rounds = [own[torch.randperm(len(own), generator=generator)] for _ in range(-(-len(share) // len(own)))]
        rows.append(torch.cat(rounds)[: len(share)])
    mixed = torch.cat(rows)[torch.randperm(total, generator=generator)]
    return torch.split(mixed[: sum(sizes)], list(sizes))


def keyed_generator(*key: int) -> torch.Generator:
    """A random number generator determined by a key."""
    return torch.Generator().manual_seed(seed_from_key(*key))


def seed_from_key(*key: int) -> int:
    """32 bits of a key's hash: torch uses no more bits of a seed, so each seed must depend on all of the key."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:4], "little")
