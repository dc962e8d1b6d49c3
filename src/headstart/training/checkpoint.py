"""Checkpoints of a training loop: after a kill it resumes from the last one and ends in the same bits.

`.cache/checkpoints/<stage>/<key>/` holds the last two, `<steps>-<CRC-32 of the file>.pt`. The key is the hash of all
that the result depends on, so a checkpoint of other params, pictures or code is never used. They are no DVC outs: DVC
deletes a stage's outs before it runs. They stay until the next stage starts: a kill before DVC has recorded that the
stage ran makes it run again.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

import headstart
from headstart.base import distributed
from headstart.base.cache_dir import make_room
from headstart.base.errors import first_line
from headstart.base.files import crc32_file, list_files

SAVE_INTERVAL = 20.0  # seconds of training that a kill may cost, where writing is fast
MAX_WRITE_SHARE = 0.05  # of the time: after a write of w seconds the next one comes no sooner than w / 0.05 later
KEEP_LAST = 2
_FINISHED = "done"  # an empty file beside the checkpoints of a training that has ended


class Checkpoints:
    """The checkpoints of one training; `for_stage` creates it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._saved_at = time.monotonic()
        self._write_seconds = 0.0  # of the last checkpoint
        self._warned = False

    @classmethod
    def for_stage(cls, root: Path, stage: str, *key_parts: object) -> "Checkpoints":
        """The checkpoints of a stage; the key is the hash of these parts (JSON values), the code, and the machine."""
        # On a CPU sums are divided among the threads.
        machine = [torch.__version__, torch.cuda.device_count() or torch.get_num_threads()]
        text = json.dumps([*key_parts, _code_digest(), *machine], sort_keys=True)
        return cls(root / ".cache/checkpoints" / stage / hashlib.sha256(text.encode()).hexdigest()[:32])

    def due(self) -> bool:
        """Whether it is time for the next checkpoint: after SAVE_INTERVAL, or later where the disk is slow."""
        interval = max(SAVE_INTERVAL, self._write_seconds / MAX_WRITE_SHARE)
        return time.monotonic() - self._saved_at >= interval

    def save(self, state: dict[str, Any], number: int) -> None:
        """Write a checkpoint atomically and remove all but the last two; only the main process does.

        A full disk gives one warning: training continues without checkpoints.

        Args:
            state: tensors and plain values.
            number: steps done; later checkpoints have higher numbers.
        """
        if not distributed.is_main_process():
            return
        part, started = self._folder / f"{os.getpid()}.part", time.monotonic()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            path = self._folder / f"{number:012d}-{crc32_file(part):08x}.pt"
            part.replace(path)
            make_room(self._folder, 0)
            # At the end of an epoch the last step's checkpoint is written again, with the epoch's validation.
            earlier = [one for one in self._paths() if one != path]
            replaced = [one for one in earlier if one.name.startswith(f"{number:012d}-")]
            for old in [*replaced, *[one for one in earlier if one not in replaced][KEEP_LAST - 1 :]]:
                old.unlink(missing_ok=True)
        except (OSError, RuntimeError) as error:  # torch's own writer turns a full disk into a RuntimeError
            with suppress(OSError):  # a folder that cannot be written to, or that is none
                part.unlink(missing_ok=True)
            if not self._warned:
                print(f"warning: no checkpoint: {self._folder}: {first_line(error)}", file=sys.stderr)
            self._warned = True
        self._saved_at = time.monotonic()
        self._write_seconds = self._saved_at - started

    def load(self) -> dict[str, Any] | None:
        """The newest readable checkpoint; None without one."""
        for path in self._paths():
            with suppress(Exception):  # whatever a half-written disk has left: the checkpoint before it is used
                if f"{crc32_file(path):08x}" == path.stem.partition("-")[2]:
                    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                    return state
            print(f"warning: {path}: the checkpoint is damaged; the one before it is used", file=sys.stderr)
            with suppress(OSError):
                path.unlink(missing_ok=True)
        return None

    def mark_finished(self) -> None:
        """Record that the training has ended and its result is on disk: `remove_finished` may remove them."""
        if self._paths():
            with suppress(OSError):
                (self._folder / _FINISHED).touch()

    def _paths(self) -> list[Path]:
        return list_files(self._folder, "*.pt")[::-1]


def remove_finished(root: Path, stage: str) -> None:
    """Remove the checkpoints of a stage's ended trainings; to be called when DVC has recorded that stage."""
    for marker in (root / ".cache/checkpoints" / stage).glob(f"*/{_FINISHED}"):
        shutil.rmtree(marker.parent, ignore_errors=True)


def _code_digest() -> str:
    """Hash of this package's code."""
    digest = hashlib.sha256()
    package = Path(headstart.__file__).parent
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return digest.hexdigest()
