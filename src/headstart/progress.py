"""A progress bar for what takes more than two seconds; a line now and then where there is no terminal."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

T = TypeVar("T")
PATIENCE = 2.0  # seconds before anything is shown
PAUSE = 10.0  # seconds between two lines where there is no terminal


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The items one by one, with a progress bar on standard error once they take over two seconds.

    Args:
        items: what is worked through; the work is done by the one who iterates, or by `items` itself.
        what: shown before the bar, such as `fetch: pictures`.
        total: how many items there will be.
    """
    console = Console(stderr=True)
    started = shown = time.monotonic()
    bar: tuple[Progress, TaskID] | None = None
    try:
        for count, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            if bar:
                bar[0].update(bar[1], completed=count)
            elif now - started > PATIENCE and console.is_terminal:
                bar = _bar(console, what, total, count)
            elif now - started > PATIENCE and now - shown > PAUSE:
                print(f"{what}: {count:,} of {total:,}", file=sys.stderr, flush=True)
                shown = now
    finally:
        if bar:
            bar[0].stop()


def _bar(console: Console, what: str, total: int, count: int) -> tuple[Progress, TaskID]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console)
    progress.start()
    return progress, progress.add_task(what, total=total, completed=count)
