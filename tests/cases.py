"""Trainings that two processes must do as one does. Run by torchrun with a folder, it does them all in there."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import tiny
from headstart import ranks
from headstart.checkpoint import Checkpoints, Stop
from headstart.fine_tune import fine_tune
from headstart.params import Params
from headstart.train_head import train_head

EXACT: dict[str, Any] = {"train": {"precision": "fp32"}}
CLASSIFY: dict[str, Any] = EXACT | {
    "model": {"head": {"hidden": [8], "batch_norm": False, "dropout": 0}},
    "train_head": {"class_weights": "balanced", "label_smoothing": 0.1, "batch_size": 7},
}
BOXES: dict[str, Any] = EXACT | {"train_head": {"epochs": 1}}
FRESH = {"class_weights": "balanced", "accumulate": 2, "clip_norm": 0.3, "batch_size": 3}
THAW = {"unfreeze": [{"epoch": 0, "depth": -1}, {"epoch": 1, "depth": 3}]}
CASES: dict[str, tuple[Callable[[Params, Path], None], Params]] = {
    "head": (train_head, tiny.make_params(**CLASSIFY)),
    "fresh": (fine_tune, tiny.make_params(**CLASSIFY, fine_tune=FRESH | THAW)),
    "cached": (fine_tune, tiny.make_params(**CLASSIFY, fine_tune={"cache_frozen": True, "sampling": "balanced"})),
    "retinanet": (train_head, tiny.make_detect_params(**BOXES, model={"detector": "retinanet"})),
    "fcos": (fine_tune, tiny.make_detect_params(**BOXES, fine_tune={"batch_size": 3})),
    "stopped": (fine_tune, tiny.make_params(**CLASSIFY, fine_tune={"batch_size": 3})),
}


def train(case: str, root: Path) -> None:
    """`root` is a project whose stages before this one have run."""
    stage, params = CASES[case]
    try:
        stage(params, root)
    except SystemExit as end:
        if end.code:  # asked to stop; with 0 all but the first process end
            raise


def leave() -> None:
    """`ranks.finish`, but the processes stay together: a launcher lets them meet once."""
    if ranks.rank():
        raise SystemExit(0)


def wait_to_be_stopped() -> None:
    """A checkpoint after every step, and after two of them nothing more until the signal is there."""
    ask, asked_for, steps = Stop._ask, list[int](), iter(range(100))

    def asked(self: Stop, number: int, frame: FrameType | None) -> None:
        asked_for.append(number)  # no Event: its lock may be held by what this handler interrupts
        ask(self, number, frame)

    def due(_: Checkpoints) -> bool:
        end = time.monotonic() + 100
        if waits := next(steps) >= 2:
            while not asked_for and time.monotonic() < end:
                time.sleep(0.01)
        return not waits or bool(asked_for)

    Stop._ask = asked  # type: ignore[method-assign, assignment]
    Checkpoints.due = due  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    ranks.start()
    ranks.finish = leave
    with ranks.quiet():
        for name in CASES:
            if name == "stopped":
                wait_to_be_stopped()
            train(name, Path(sys.argv[1]) / name)
