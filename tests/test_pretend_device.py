"""Stages on a pretend GPU: no tensor is left on the CPU, and a step of training does not wait for the device.

`pretend_device` says what such a run cannot show.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tiny
from headstart.params.root import Params

Waits = dict[str, int]  # of each stage
SCRIPT = Path(__file__).with_name("pretend_device.py")
BEFORE = ("fetch", "weights", "split", "augment")
TRAINING = ("train-head", "fine-tune")
SHARED: dict[str, Any] = {
    "train": {"cpu_kernels": False, "precision": "fp32"},
    "split": {"train": 0.5, "val": 0.25, "test": 0.25, "near_duplicate_bits": -1},
}
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "cached activations": {"fine_tune": {"cache_frozen": True}},
    "augmented, dropout, batch norm": {
        "model": {"head": {"hidden": [8], "batch_norm": True, "dropout": 0.2}},
        "augment": {"hue": 0.1, "noise": 0.01, "shear": 5},
        "fine_tune": {"batch_norm": "update", "mixup": 0.2, "cutmix": 0.5, "class_weights": "balanced"},
    },
    "bf16, features of all blocks, a fitted head": {
        "train": {"cpu_kernels": False, "precision": "bf16"},
        "model": {"head": {"hidden": [], "features": "blocks"}},
    },
    "fp16, whose gradients are scaled": {"train": {"cpu_kernels": False, "precision": "fp16"}},
    "large batches": {"fine_tune": {"batch_size": 12, "epochs": 1, "mixup": 0.2}},
    "small batches": {"fine_tune": {"batch_size": 2, "epochs": 1, "mixup": 0.2}},
}
DETECTORS = ("fcos", "retinanet", "fasterrcnn", "ssdlite320_mobilenet_v3_large")


def run_jobs(folder: Path, jobs: dict[str, tuple[Params, tuple[str, ...]]]) -> dict[str, Waits]:
    """Run stages of the projects of these names below `folder` in one process of their own."""
    values = [
        {"root": str(folder / name), "params": params.model_dump(mode="json", by_alias=True), "stages": stages}
        for name, (params, stages) in jobs.items()
    ]
    (folder / "jobs.json").write_text(json.dumps(values))
    done = in_process(str(SCRIPT), str(folder / "jobs.json"))
    assert not done.returncode, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(zip(jobs, map(json.loads, lines), strict=True))


def in_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Waits]]:
    folder = tmp_path_factory.mktemp("classifiers")
    tiny.make_pictures(folder / "cpu", count=16)
    tiny.run(folder / "cpu", tiny.make_params(**SHARED), *BEFORE)
    jobs = {}
    for name, changes in CLASSIFIERS.items():
        shutil.copytree(folder / "cpu", folder / name)
        later = ("evaluate", "export") if "batches" not in name else ()
        jobs[name] = tiny.make_params(**{**SHARED, **changes}), (*TRAINING, *later)
    return folder, run_jobs(folder, jobs)


@pytest.fixture(scope="module")
def detectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detectors")
    tiny.make_boxes(folder / "cpu")
    jobs = {}
    for name in DETECTORS:
        shutil.copytree(folder / "cpu", folder / name)
        export = ("export",) if name == "fcos" else ()
        jobs[name] = detector_params(name), (*BEFORE, *TRAINING, "evaluate", *export)
    run_jobs(folder, jobs)
    return folder


def detector_params(name: str) -> Params:
    params = tiny.make_detect_params(**SHARED, train_head={"epochs": 1}, fine_tune={"epochs": 1})
    values = params.model_dump(mode="json", by_alias=True)
    values["model"]["detector"] = name
    if name.startswith("ssdlite"):
        values["model"] |= {"backbone": "", "image_size": 128}
        del values["model"]["pyramid"]
    return Params.model_validate(values)


def val_losses(root: Path) -> list[float]:
    return [float(tiny.read_json(root / f"stages/{stage}/metrics.json")["val_loss"]) for stage in TRAINING]


@pytest.mark.parametrize("name", list(CLASSIFIERS)[:2])
def test_a_classifier_learns_what_it_learns_on_a_cpu(classifiers: tuple[Path, dict[str, Waits]], name: str) -> None:
    folder, _ = classifiers
    tiny.run(folder / "cpu", tiny.make_params(**{**SHARED, **CLASSIFIERS[name]}), *TRAINING)
    assert val_losses(folder / name) == pytest.approx(
        val_losses(folder / "cpu"), rel=0.1
    )  # AdamW makes much of a last bit


def test_a_classifier_is_evaluated_and_exported(classifiers: tuple[Path, dict[str, Waits]]) -> None:
    folder, _ = classifiers
    for name in list(CLASSIFIERS)[:4]:
        assert (folder / name / "stages/export/model.onnx").is_file(), name


def test_a_step_does_not_wait_for_the_device(classifiers: tuple[Path, dict[str, Waits]]) -> None:
    """Six times as many steps, and as many waits: losses are read together, and batches are made ahead."""
    _, waits = classifiers
    assert waits["large batches"]["fine-tune"] == waits["small batches"]["fine-tune"]


@pytest.mark.parametrize("name", ["fcos", "retinanet"])
def test_a_detector_learns_what_it_learns_on_a_cpu(detectors: Path, name: str) -> None:
    tiny.run(detectors / "cpu", detector_params(name), *BEFORE, *TRAINING)
    assert val_losses(detectors / name) == pytest.approx(val_losses(detectors / "cpu"), rel=0.1)


def test_a_detector_is_evaluated_and_exported(detectors: Path) -> None:
    assert (detectors / "fcos/stages/export/model.onnx").is_file()
    for name in DETECTORS:
        assert (detectors / name / "stages/evaluate/metrics.json").is_file(), name


def test_what_a_gpu_refuses_the_pretend_device_refuses() -> None:
    code = """
import torch, pretend_device
layer = torch.nn.Linear(2, 2).to(pretend_device.DEVICE)
here = torch.ones(1, 2)
there = here.to(pretend_device.DEVICE)
torch.set_deterministic_debug_mode("error")
assert layer(there).cpu().shape == (1, 2)
for wrong in (lambda: layer(here), lambda: there + here, there.numpy):
    try:
        print("accepted", wrong())
    except RuntimeError:
        print("refused")
pictures = torch.ones(1, 1, 4, 4, device=there.device, requires_grad=True)
torch.nn.functional.adaptive_avg_pool2d(pictures, 3).sum().backward()
print(pretend_device.nondeterministic)
"""
    done = in_process("-c", code)
    expected = ["refused"] * 3 + ["['aten::_adaptive_avg_pool2d_backward.default']"]
    assert done.stdout.splitlines() == expected, done.stderr
