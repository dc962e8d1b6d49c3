"""Progress on standard error: a bar on a terminal, lines elsewhere, nothing for quick work."""

from collections.abc import Iterator

import pytest

from headstart.base import progress


def test_progress_is_silent_when_quick_and_readable_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(progress.track(range(3), "work", 3)) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    clock: Iterator[int] = iter(range(0, 1000, 4))
    monkeypatch.setattr("headstart.base.progress.time.monotonic", lambda: float(next(clock)))
    list(progress.track(range(9), "work", 9))
    assert capsys.readouterr().err == "work: 3 of 9\nwork: 6 of 9\nwork: 9 of 9\n"


def test_progress_is_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(progress, "SECONDS_BEFORE_SHOWN", -1.0)
    assert sum(progress.track(range(9), "work", 9)) == 36
    printed = capsys.readouterr().err
    assert "work" in printed
    assert "9/9" in printed
