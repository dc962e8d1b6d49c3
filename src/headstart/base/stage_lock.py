"""One execution of a stage at a time in one folder: a lock that the operating system drops when its process ends.

A killed `dvc repro` leaves its stage running, and the next one would start the same stage beside it.
"""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from headstart.base import distributed
from headstart.base.errors import UserError, first_line

if sys.platform == "win32":
    import msvcrt

    def _lock(file: TextIO) -> None:
        file.seek(1 << 30)  # Windows forbids others to read a locked byte: one far behind the text
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: TextIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def stage_lock(root: Path, stage: str) -> Iterator[None]:
    """Hold `.cache/locks/<stage>.lock` for the block; the file has the holder's process id and machine as its text.

    Of several processes that a launcher starts, rank 0 holds it for all. A file system without locks is a warning.

    Args:
        root: the repository root.
        stage: its name.

    Raises:
        UserError: another process holds it.
    """
    if distributed.launched_world_size() > 1 and distributed.get_rank():
        yield
        return
    path = root / ".cache/locks" / f"{stage}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):
            raise _held_error(path, root, stage) from None
        except OSError as error:
            print(
                f"warning: {path.relative_to(root)}: no lock ({first_line(error)}): run {stage} once at a time",
                file=sys.stderr,
            )
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()} {platform.node()}\n")
        file.flush()
        yield


def _held_error(path: Path, root: Path, stage: str) -> UserError:
    pid, _, machine = path.read_text(encoding="utf-8").strip().partition(" ")
    who = f"process {pid} on {machine}" if pid else "another process"
    stop = f"stop it (kill {pid}), and the same command goes on" if pid else "stop it"
    where = path.relative_to(root)
    return UserError(f"{where}: {who} runs {stage} in this folder; wait until it ends, or {stop}")
