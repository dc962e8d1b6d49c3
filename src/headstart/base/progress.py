"""A progress bar for work of more than two seconds; a line now and then where there is no terminal."""

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")
SECONDS_BEFORE_SHOWN = 2.0
SECONDS_BETWEEN_LINES = 10.0  # where there is no terminal


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """The items one by one, with a progress bar on standard error once they take more than two seconds.

    Args:
        items: what is worked through; the consumer does the work, or `items` itself.
        description: shown before the bar, such as `fetch: pictures`.
        total: how many items there will be.
    """
    with ProgressBar(description, total) as bar:
        for item in items:
            yield item
            bar.advance()


class ProgressBar:
    """A progress bar moved by hand: `with ProgressBar("fetch: downloads", 200) as bar: … bar.advance()`."""

    def __init__(self, description: str, total: int) -> None:
        self.description, self.total, self.count = description, total, 0
        self._console = Console(stderr=True)
        self._started = self._shown = time.monotonic()
        self._live: Progress | None = None

    def advance(self, by: int = 1) -> None:
        """Count `by` more items as done."""
        self.count += by
        now = time.monotonic()
        if self._live:
            self._live.update(self._live.task_ids[0], completed=self.count)
        elif now - self._started > SECONDS_BEFORE_SHOWN and self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._live = Progress(*columns, console=self._console)
            self._live.start()
            self._live.add_task(self.description, total=self.total, completed=self.count)
        elif now - self._started > SECONDS_BEFORE_SHOWN and now - self._shown > SECONDS_BETWEEN_LINES:
            print(f"{self.description}: {self.count:,} of {self.total:,}", file=sys.stderr, flush=True)
            self._shown = now

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
