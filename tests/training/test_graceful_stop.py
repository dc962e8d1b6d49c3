"""Signals are recorded until the end of a step; a second one ends the process at once."""

import os
import signal

import pytest

from headstart.training.graceful_stop import GracefulStop


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_second_signal_does_not_wait(number: int, error: type[BaseException]) -> None:
    before = signal.getsignal(number)
    with GracefulStop() as stop:
        assert stop.received is None
        os.kill(os.getpid(), number)
        assert stop.received == number
        with pytest.raises(error):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before
