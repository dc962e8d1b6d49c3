"""Trainings that two processes must do as one does. Run by torchrun with a folder, it does them all in there."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import tiny
from headstart import ranks
from headstart.fine_tune import fine_tune
from headstart.params import Params
from headstart.train_head import train_head

EXACT: dict[str, Any] = {"train": {"precision": "fp32"}}
CLASSIFY: dict[str, Any] = EXACT | {
    "model": {"head": {"hidden": [8], "batch_norm": False, "dropout": 0}},
    "train_head": {"class_weights": "balanced", "label_smoothing": 0.1, "batch_size": 7},
}
DETECT: dict[str, Any] = EXACT | {"train_head": {"epochs": 2}}
CASES: dict[str, Params] = {
    "classify": tiny.make_params(
        **CLASSIFY,
        fine_tune={"class_weights": "balanced", "accumulate": 2, "clip_norm": 0.3, "batch_size": 3}
        | {"unfreeze": [{"epoch": 0, "depth": -1}, {"epoch": 1, "depth": 3}]},
    ),
    "classify-cached": tiny.make_params(**CLASSIFY, fine_tune={"cache_frozen": True, "sampling": "balanced"}),
    "fcos": tiny.make_detect_params(**DETECT),
    "retinanet": tiny.make_detect_params(**DETECT, model={"detector": "retinanet"}, fine_tune={"batch_size": 3}),
}


def train(case: str, root: Path) -> None:
    """Both trainings of a case; `root` is a project whose stages before them have run."""
    for stage in (train_head, fine_tune):
        ranks.start()
        with suppress(SystemExit):  # how a process ends that is not the first one
            stage(CASES[case], root)


if __name__ == "__main__":
    for name in CASES:
        train(name, Path(sys.argv[1]) / name)
