"""Where a training loop stands, on disk: after a kill it goes on from there, to the same bits.

`.cache/checkpoints/<stage>/<key>/` holds the last two. The key is the hash of all that the result depends on, so a
checkpoint of other params, pictures or code is never used. No DVC out lies there: DVC deletes a stage's outs before
it runs. When the stage is done they stay until the next one begins: before DVC has written down that a stage ran, a
kill makes it run again.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import torch

from headstart import ranks
from headstart.files import listed

EVERY = 20.0  # seconds of training that a kill may cost
KEPT = 2
_DONE = "done"  # a file that says that the training these belong to has ended


class Checkpoints:
    """The checkpoints of one training; made by `of`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._saved = time.monotonic()
        self._warned = False

    @classmethod
    def of(cls, root: Path, stage: str, *facts: object) -> "Checkpoints":
        """The checkpoints of a stage whose result depends on these facts (anything JSON can write), code, machine."""
        known = [*facts, _code(), torch.__version__, torch.get_num_threads(), torch.cuda.device_count()]
        key = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]
        return cls(root / ".cache/checkpoints" / stage / key)

    def due(self) -> bool:
        """Whether the last one is old enough for a new one."""
        return time.monotonic() - self._saved >= EVERY

    def save(self, state: dict[str, Any], number: int) -> None:
        """Write one whole or not at all, and remove all but the last two. Of several processes the first one does.

        A disk without room costs a warning here: what trains goes on.
        """
        if not ranks.leads():
            return
        part = self._folder / f"{os.getpid()}.part"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._folder / f"{number:012d}.pt")
            for old in self._all()[KEPT:]:
                old.unlink(missing_ok=True)
        except (OSError, RuntimeError) as error:  # torch's own writer turns a full disk into a RuntimeError
            part.unlink(missing_ok=True)
            if not self._warned:
                print(f"warning: no checkpoint: {self._folder}: {str(error).partition(chr(10))[0]}", file=sys.stderr)
            self._warned = True
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The newest that can be read; None when there is none."""
        for path in self._all():
            try:
                found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            except Exception:  # whatever a half-written disk left there: the one before it will do
                path.unlink(missing_ok=True)
                continue
            return found
        return None

    def done(self) -> None:
        """The training has ended and its result is on disk: `sweep` may remove them."""
        if self._all():
            with suppress(OSError):
                (self._folder / _DONE).touch()

    def _all(self) -> list[Path]:
        return listed(self._folder, "*.pt")[::-1]


def sweep(root: Path, stage: str) -> None:
    """Remove the checkpoints of a stage's ended trainings; to be called when DVC has recorded that stage."""
    for done in (root / ".cache/checkpoints" / stage).glob(f"*/{_DONE}"):
        shutil.rmtree(done.parent, ignore_errors=True)


def _code() -> str:
    """Hash of this package's code."""
    found = hashlib.sha256()
    package = Path(__file__).parent
    for path in sorted(package.rglob("*.py")):
        found.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return found.hexdigest()


class Stop:
    """Ctrl-C and SIGTERM wait for the end of a step, so that what is saved is whole; asked twice, they do not."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        if self.asked is not None:
            self._leave(number)
        self.asked = number

    def obey(self, asked: int, line: str) -> None:
        """Say the line and leave as this signal wants it; 0: go on."""
        if asked:
            print(line, flush=True)
            self._leave(asked)

    def _leave(self, number: int) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt(number)
        raise SystemExit(128 + number)
