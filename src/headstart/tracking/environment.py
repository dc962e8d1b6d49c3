"""The machine and the versions that a stage ran with, as tags of its run."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from headstart.params.root import Params

PACKAGES = ("headstart", "torch", "timm", "torchvision", "onnxruntime", "mlflow")
TAG_PREFIX = "headstart.env."
COMPUTING_STAGES = ("train-head", "fine-tune", "evaluate")  # those that read train.precision


def describe_environment(stage: str, params: Params) -> dict[str, str]:
    """Versions of Python and of PACKAGES, the processor; of a stage that has loaded torch also GPU, threads, precision.

    Called in the stage's own process, at its end. It imports nothing large.

    Args:
        stage: its name; `precision` (what `train.precision: auto` became) is of COMPUTING_STAGES only.
        params: of this execution.
    """
    found = {"python": platform.python_version(), "cpu": cpu_model()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    torch = sys.modules.get("torch")
    if torch is not None and stage in (*COMPUTING_STAGES, "export"):
        from headstart.engine.device import PRECISIONS, choose_dtype, chosen_device

        device = chosen_device()
        found["threads"] = str(torch.get_num_threads())
        if device.type == "cuda":
            found["gpu"] = str(torch.cuda.get_device_name(device))
        if stage in COMPUTING_STAGES:
            found["precision"] = PRECISIONS[choose_dtype(params.train.precision, device)]
    return found


def merge_tag(before: str | None, stage: str, value: str) -> str:
    """A tag's new value; one that differs from stage to stage holds both: `2.9.0; evaluate: 2.9.1`.

    Args:
        before: the tag so far; None: there is none.
        stage: that ran with `value`.
        value: of this stage.
    """
    if not before:
        return value
    newest = before.rpartition("; ")[2]
    same = value in (newest, newest.partition(": ")[2])
    return before if same else f"{before}; {stage}: {value}"


def cpu_model() -> str:
    """The processor's name, such as `Intel(R) Xeon(R) Platinum 8481C`, and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        for line in facts.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"
