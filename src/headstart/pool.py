"""One function over many pictures: on all cores, in order, with a progress bar for what takes longer than two seconds."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from headstart.compute import cores

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")

PATIENCE_S = 2.0


def each(function: Callable[[In], Out], items: Sequence[In], what: str) -> list[Out]:
    """`[function(item) for item in items]` by threads. Pillow, numpy and torch let go of the lock while they work."""
    with ThreadPoolExecutor(cores()) as threads:
        return list(track(threads.map(function, items), what, len(items)))


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Hand the items on; after two seconds show on stderr how far it is."""
    begin = time.monotonic()
    columns = (TextColumn("  {task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(what, total=total, visible=False)
        for item in items:
            yield item
            progress.update(task, advance=1, visible=time.monotonic() - begin > PATIENCE_S)
