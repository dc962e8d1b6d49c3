"""Copies to a GPU, and batches made ahead on it, that do not make the training wait."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from headstart.base.parallel import prefetch

In = TypeVar("In")
Out = TypeVar("Out")


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device. On a GPU the copy is queued: from pinned memory, without waiting for its turn."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def prefetch_on_device(function: Callable[[In], Out], items: Sequence[In], device: torch.device) -> Iterator[Out]:
    """`map(function, items)`, two results ahead, for functions whose results are tensors on the device.

    On a GPU the function has a stream of its own. In the stream that trains, its copies and its augmentation would
    begin only once all steps asked for so far are done.

    Args:
        function: runs in a background thread; returns a tensor, or nested tuples of tensors.
        items: its arguments.
        device: of its tensors.
    """
    if device.type != "cuda":
        yield from prefetch(function, items)
        return
    ahead = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def run(item: In) -> tuple[Out, torch.cuda.Event]:
        with torch.cuda.stream(ahead):
            return function(item), ahead.record_event()

    for result, done in prefetch(run, items):
        consumer = torch.cuda.current_stream(device)
        consumer.wait_event(done)  # the GPU waits, not this thread
        _keep_for(consumer, result)
        yield result


def _keep_for(stream: torch.cuda.Stream, result: object) -> None:
    """The memory of these tensors is free for others only once the stream is done with them."""
    if isinstance(result, Tensor):
        result.record_stream(stream)
    elif isinstance(result, tuple):
        for each in result:
            _keep_for(stream, each)
