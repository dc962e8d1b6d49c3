import platform
import subprocess
import sys
from importlib.metadata import version

import pytest
import torch

import tiny
from headstart.engine import device
from headstart.tracking.environment import describe_environment, merge_tag


def test_a_stage_that_computes_names_threads_and_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    found = describe_environment("fine-tune", tiny.make_params(train={"precision": "auto"}))
    assert found["python"] == platform.python_version()
    assert found["torch"] == version("torch")
    assert found["timm"] == version("timm")
    assert found["threads"] == str(torch.get_num_threads())
    assert found["cpu"].endswith(" cores")
    compute = device.configure_torch(tiny.make_params().train, 0)
    assert found["precision"] == device.PRECISIONS[compute.dtype]
    monkeypatch.setattr(device, "computes_bf16", lambda device: True)
    assert describe_environment("evaluate", tiny.make_params())["precision"] == "bf16"
    assert describe_environment("evaluate", tiny.make_params(train={"precision": "fp32"}))["precision"] == "fp32"
    assert "precision" not in describe_environment("export", tiny.make_params())


def test_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "chosen_device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(device, "computes_bf16", lambda device: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    assert describe_environment("train-head", tiny.make_params())["gpu"] == "NVIDIA H200"


def test_a_stage_without_torch_does_not_import_it() -> None:
    code = (
        "import sys, tiny_params as t\nfrom headstart.tracking.environment import describe_environment as d\n"
        "found = d('fine-tune', None); assert 'torch' not in sys.modules; assert 'threads' not in found; print(found)"
    ).replace(", tiny_params as t", "")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert version("torch") in done.stdout


def test_a_tag_names_the_stages_that_ran_elsewhere() -> None:
    assert merge_tag(None, "fetch", "2.9.0") == "2.9.0"
    assert merge_tag("2.9.0", "split", "2.9.0") == "2.9.0"
    assert merge_tag("2.9.0", "evaluate", "2.9.1") == "2.9.0; evaluate: 2.9.1"
    assert merge_tag("2.9.0; evaluate: 2.9.1", "export", "2.9.1") == "2.9.0; evaluate: 2.9.1"
    assert merge_tag("2.9.0; evaluate: 2.9.1", "export", "2.9.0") == "2.9.0; evaluate: 2.9.1; export: 2.9.0"
