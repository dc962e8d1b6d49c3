"""One function over many pictures, on all cores, in order."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from headstart.progress import track

In = TypeVar("In")
Out = TypeVar("Out")


def each(function: Callable[[In], Out], items: Sequence[In], what: str) -> list[Out]:
    """`[function(item) for item in items]` by threads. Pillow, numpy and torch let go of the lock while they work."""
    with ThreadPoolExecutor(cores()) as threads:
        return list(track(threads.map(function, items), what, len(items)))


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
