"""Graceful stop: Ctrl-C and SIGTERM take effect at the end of a training step."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class GracefulStop:
    """Context manager that records SIGINT and SIGTERM; a second signal ends the process at once.

    Attributes:
        received: number of the signal that came; None: none so far.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous_handlers = {
                number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            exit_by_signal(number)
        self.received = number


def exit_by_signal(number: int) -> None:
    """Raise what this signal raises by default.

    Raises:
        KeyboardInterrupt: for SIGINT.
        SystemExit: for any other.
    """
    if number == signal.SIGINT:
        raise KeyboardInterrupt(number)
    raise SystemExit(128 + number)
