"""Many pictures at once, on all cores, in order."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from headstart.progress import track

In = TypeVar("In")
Out = TypeVar("Out")


def each(function: Callable[[In], Out], items: Sequence[In], what: str) -> list[Out]:
    """`[function(item) for item in items]` by threads. Pillow, numpy and torch let go of the lock while they work."""
    with ThreadPoolExecutor(cores()) as threads:
        return list(track(threads.map(function, items), what, len(items)))


def ahead(function: Callable[[In], Out], items: Sequence[In], count: int = 2) -> Iterator[Out]:
    """`map(function, items)` in a thread of its own, up to `count` results before they are asked for.

    While the network learns from one batch, the next ones are read and decoded. The thread takes one item after the
    other, so that nothing depends on its being there; an error comes up where its result is asked for.
    """
    with ThreadPoolExecutor(1, "ahead") as thread:
        rest = iter(items)
        waiting = deque(thread.submit(function, item) for item in itertools.islice(rest, count))
        try:
            while waiting:
                found = waiting.popleft().result()
                waiting.extend(thread.submit(function, item) for item in itertools.islice(rest, 1))
                yield found
        finally:  # whoever stops asking need not wait for more than one
            for each in waiting:
                each.cancel()


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
