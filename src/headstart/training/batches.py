"""The interface between a task and its training: batches, loss and validation, and the network that trains on them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from headstart.base.arrays import Ints
from headstart.base.manifest import Image
from headstart.engine.streams import prefetch_on_device
from headstart.models.freeze import Block
from headstart.training.loop_state import ValMetrics

Batch = tuple[Any, Tensor]  # the network's inputs, a tensor or a tuple of tensors, and the targets


class ValOutcome(NamedTuple):
    """A network on the validation pictures.

    Attributes:
        metrics: val_loss among them.
        losses: of each picture, (n,), whose mean is val_loss.
    """

    metrics: ValMetrics
    losses: Tensor


class MixupFunction(Protocol):
    """Mixes the pictures of a batch with each other."""

    def __call__(self, pictures: Tensor, targets: Tensor, *key: int) -> tuple[Tensor, Tensor]:
        """Mixed pictures, and targets as shares (n, labels); random, but the same for the same key."""


@dataclass(frozen=True)
class TrainingBatches:
    """The training data of one task, for one network.

    Attributes:
        network: takes a batch's inputs: the whole network, or what stands on cached activations.
        file_names: files of the training pictures, in the order of the rows.
        checkpoint_key: what batches depend on besides rows and epoch; plain values, part of the checkpoints' key.
        make_batch: (rows of the training set, epoch from 1) -> inputs and targets. It runs in a background thread,
            ahead of the training, and must not use torch's global random state.
        loss: (outputs, targets) -> scalar.
        validate: metrics of the network in its present state, val_loss among them.
        val_outcome: the same with each picture's loss; None for a detector, whose loss is no mean of pictures'.
        val_units: number of each validation picture's unit, (n,); as above.
        labels: class number of each row, (n,); None for a detector.
        mixup: applied to each batch; None: off.
    """

    network: nn.Module
    file_names: Sequence[str]
    checkpoint_key: object
    make_batch: Callable[[Tensor, int], Batch]
    loss: Callable[[Tensor, Tensor], Tensor]
    validate: Callable[[], ValMetrics]
    val_outcome: Callable[[], ValOutcome] | None = None
    val_units: Ints | None = None
    labels: Tensor | None = None
    mixup: MixupFunction | None = None

    def iterate(self, rows_of_batches: Sequence[Tensor], epoch: int, seed: int) -> Iterator[Batch]:
        """The batches of these rows, made ahead in a background thread; `seed` is mixup's."""
        device = next(self.network.parameters()).device
        batches = prefetch_on_device(lambda rows: self.make_batch(rows, epoch), rows_of_batches, device)
        for rows, (inputs, targets) in zip(rows_of_batches, batches, strict=True):
            yield self.mixup(inputs, targets, seed, epoch, *rows.tolist()) if self.mixup else (inputs, targets)


class TrainableNetwork(NamedTuple):
    """A network with a backbone, in eval mode, and its batches.

    Attributes:
        network: the backbone is its `trunk`.
        blocks: the backbone's, from the input on.
        unused_parameters: names of the backbone's parameters that no output depends on.
        make_batches: names of the backbone's frozen parameters -> batches.
    """

    network: nn.Module
    blocks: list[Block]
    unused_parameters: frozenset[str]
    make_batches: Callable[[set[str]], TrainingBatches]


def labeled_hashes(images: Sequence[Image]) -> list[tuple[str, str | None]]:
    """(sha256, label) of each picture: what a classifier's checkpoints depend on."""
    return [(image.sha256, image.label) for image in images]
