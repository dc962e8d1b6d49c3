"""Trainings in which two processes must do what one does; run by torchrun with a folder, it runs them all there."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import tiny
from headstart.base import distributed
from headstart.params.root import Params
from headstart.training.checkpoint import Checkpoints
from headstart.training.graceful_stop import GracefulStop
from tiny import fine_tune, train_head

EXACT: dict[str, Any] = {"train": {"precision": "fp32"}}
CLASSIFY: dict[str, Any] = EXACT | {
    "model": {"head": {"hidden": [8], "batch_norm": False, "dropout": 0}},
    "train_head": {"class_weights": "balanced", "label_smoothing": 0.1, "batch_size": 7},
}
BOXES: dict[str, Any] = EXACT | {"train_head": {"epochs": 1}}
AUGMENTED = {"class_weights": "balanced", "accumulate": 2, "clip_norm": 0.3, "batch_size": 3}
UNFREEZE = {"unfreeze": [{"epoch": 0, "depth": -1}, {"epoch": 1, "depth": 3}]}
CASES: dict[str, tuple[Callable[[Params, Path], None], Params]] = {
    "head": (train_head, tiny.make_params(**CLASSIFY)),
    "solved": (train_head, tiny.make_params(**EXACT, model={"head": {"kind": "kernel", "features": "blocks"}})),
    "augmented": (fine_tune, tiny.make_params(**CLASSIFY, fine_tune=AUGMENTED | UNFREEZE)),
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
        if end.code:  # stopped by a signal; with 0 all but the main process end
            raise


def end_other_ranks() -> None:
    """`shutdown_distributed`, but the process group stays: a launcher initializes it once."""
    if distributed.get_rank():
        raise SystemExit(0)


def wait_for_signal() -> None:
    """A checkpoint after every step; after two of them the training waits for the signal."""
    handle, received, steps = GracefulStop._handle, list[int](), iter(range(100))

    def recorded(self: GracefulStop, number: int, frame: FrameType | None) -> None:
        received.append(number)  # no Event: its lock may be held by what this handler interrupts
        handle(self, number, frame)

    def due(_: Checkpoints) -> bool:
        end = time.monotonic() + 100
        if waits := next(steps) >= 2:
            while not received and time.monotonic() < end:
                time.sleep(0.01)
        return not waits or bool(received)

    GracefulStop._handle = recorded  # type: ignore[method-assign, assignment]
    Checkpoints.due = due  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    distributed.init_distributed()
    distributed.shutdown_distributed = end_other_ranks
    with distributed.silence_other_ranks():
        for name in CASES:
            if name == "stopped":
                wait_for_signal()
            train(name, Path(sys.argv[1]) / name)
