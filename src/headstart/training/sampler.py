"""Samplers: the rows of each batch of an epoch. Random numbers come from a key: any batch can be made at any time."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.base import distributed
from headstart.params.training import TrainingStageParams


@dataclass(frozen=True)
class BatchSampler:
    """The rows of every batch of every epoch of a training.

    Attributes:
        count: rows of the training set.
        labels: class number of each row, (count,), for `sampling: balanced`; None: rows are always shuffled.
        section: batch size and sampling.
        seed: of the whole training.
    """

    count: int
    labels: Tensor | None
    section: TrainingStageParams
    seed: int

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return steps_per_epoch(self.count, self.section.batch_size)

    def rows(self, epoch: int) -> Sequence[Tensor]:
        """The rows of each batch of an epoch (from 1)."""
        if self.section.sampling == "balanced" and self.labels is not None:
            return balanced_rows(self.labels, self.section.batch_size, self.seed, epoch)
        return shuffled_rows(self.count, self.section.batch_size, self.seed, epoch)

    def rank_rows(self, epoch: int, first: int, stage: str) -> list[Tensor]:
        """This rank's rows of an epoch's batches, from batch number `first` (from 0) on.

        Raises:
            UserError: a batch of this stage has fewer rows than there are processes.
        """
        return [distributed.rank_rows(rows, stage) for rows in self.rows(epoch)[first:]]


def shuffled_rows(count: int, batch_size: int, *key: int) -> tuple[Tensor, ...]:
    """Rows 0..count-1 in random order, in batches of almost equal size: batch norm fails on a batch of one row."""
    return torch.randperm(count, generator=keyed_generator(*key)).tensor_split(steps_per_epoch(count, batch_size))


def balanced_rows(labels: Tensor, batch_size: int, *key: int) -> tuple[Tensor, ...]:
    """As many rows as `shuffled_rows`, equally many of each label (but for a remainder): some rows repeat, or are out.

    Args:
        labels: class number of each row, (n,).
        batch_size: rows in a batch, about.
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
    return mixed.tensor_split(steps_per_epoch(total, batch_size))


def keyed_generator(*key: int) -> torch.Generator:
    """A random number generator determined by a key."""
    return torch.Generator().manual_seed(seed_from_key(*key))


def seed_from_key(*key: int) -> int:
    """32 bits of a key's hash: torch uses no more bits of a seed, so each seed must depend on all of the key."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:4], "little")


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Batches in an epoch: none of a single row, unless `batch_size` is 1."""
    most = count if batch_size == 1 else count // 2
    return max(1, min(round(count / batch_size), most))
