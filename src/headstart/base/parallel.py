"""Threads for pictures: a parallel map on all cores, and prefetching; results in order."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from headstart.base.progress import track

In = TypeVar("In")
Out = TypeVar("Out")


def parallel_map(function: Callable[[In], Out], items: Sequence[In], description: str) -> list[Out]:
    """`[function(item) for item in items]` in threads, with a progress bar named `description`.

    Pillow, numpy and torch release the GIL while they work.
    """
    with ThreadPoolExecutor(process_cpu_count()) as threads:
        return list(track(threads.map(function, items), description, len(items)))


def prefetch(function: Callable[[In], Out], items: Sequence[In], count: int = 2) -> Iterator[Out]:
    """`map(function, items)` in a background thread, up to `count` results ahead.

    While the network trains on one batch, the next ones are read and decoded. One thread takes the items in order, so
    results do not depend on it; an exception is raised where its result is consumed.
    """
    with ThreadPoolExecutor(1, "ahead") as thread:
        remaining = iter(items)
        pending = deque(thread.submit(function, item) for item in itertools.islice(remaining, count))
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(thread.submit(function, item) for item in itertools.islice(remaining, 1))
                yield result
        finally:  # a consumer that stops early waits for one item at most
            for future in pending:
                future.cancel()


def process_cpu_count() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
