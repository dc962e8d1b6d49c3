"""torch.compile changes how a network is computed, not what, and no tensor's name."""

import itertools
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from conftest import Project
from headstart.base.errors import UserError
from headstart.engine.compile import compile_backbone
from headstart.engine.cpu.optimize import optimize
from headstart.engine.device import Compute
from headstart.models.classifier import Classifier
from headstart.models.file import read_model_file
from headstart.training import checkpoint
from headstart.training.checkpoint import Checkpoints
from tiny import fine_tune, train_head

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler: apt install g++"
)


@pytest.fixture(autouse=True)
def _discard_compiled_code() -> Iterator[None]:
    yield
    torch.compiler.reset()


@pytest.fixture
def only_traced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """torch.compile without its C++ backend, which takes minutes; the batch sizes it was called for."""
    compile_, sizes = torch.compile, list[int]()

    def traced(function: Callable[..., Any], *, dynamic: bool, options: object) -> Callable[..., Any]:
        compiled = compile_(function, dynamic=dynamic, backend="aot_eager")

        def call(pictures: Tensor, **options: Any) -> Any:
            sizes.append(len(pictures))
            return compiled(pictures, **options)

        return call

    monkeypatch.setattr(torch, "compile", traced)
    return sizes


def network() -> Classifier:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.SiLU(), nn.Conv2d(8, 8, 5, 2, 2, groups=8), nn.Dropout(0.5)]
    backbone = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Classifier(backbone, nn.Linear(8, 2))


def step(network: Classifier, pictures: Tensor) -> dict[str, Tensor]:
    """The gradients of one training step."""
    torch.manual_seed(1)
    network.zero_grad()
    nn.functional.cross_entropy(network(pictures), torch.tensor([0, 1, 1, 0])).backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@needs_compiler
def test_a_compiled_step_is_the_eager_one() -> None:
    """Dropout and the depthwise convolution's own gradients included, and the same bits twice."""
    eager, compiled = network(), network()
    for each in (eager, compiled):
        optimize(each, Compute(torch.device("cpu")), training=True)
    compile_backbone(compiled)
    pictures = torch.randn(4, 3, 16, 16)
    expected, found, again = step(eager, pictures), step(compiled, pictures), step(compiled, pictures)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-4 * gradient.abs().max().item(), rtol=0)
        assert torch.equal(found[name], again[name])


def test_without_a_compiler_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # or code compiled before would be used
    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    compiled = network()
    compile_backbone(compiled)
    with pytest.raises(
        UserError,
        match=r"^params\.yaml: train\.compile: true: .*no-such-compiler.*apt install g\+\+.*, or give false$",
    ):
        step(compiled, torch.randn(4, 3, 16, 16))


@pytest.fixture
def root(project: Project, tmp_path: Path) -> Path:
    """A copy of the project up to train-head, with one picture less, so that not all batches have one size."""
    for name in ("fetch", "weights", "split", "augment", "train-head"):
        shutil.copytree(project.root / "stages" / name, tmp_path / "stages" / name)
    for path in (tmp_path / "stages/split/train.json", tmp_path / "stages/augment/train.json"):
        whole = json.loads(path.read_text())
        first = whole["images"][0]["id"]
        whole["images"] = [each for each in whole["images"] if first not in (each["id"], each.get("copy_of"))]
        path.write_text(json.dumps(whole))
    return tmp_path


def trained(root: Path, **changes: Any) -> dict[str, Tensor]:
    fine_tune(tiny.make_params(**changes), root)
    return read_model_file(root / "stages/fine-tune/model.safetensors")[0]


@pytest.mark.parametrize(("cached", "precision"), [(False, "fp32"), (True, "auto")], ids=["fresh", "cached"])
def test_fine_tuning_gives_the_same_tensors_stopped_or_not(
    root: Path, cached: bool, precision: str, only_traced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    params: dict[str, Any] = {
        "train": {"compile": True, "precision": precision},
        "fine_tune": {"epochs": 2, "ema": 0, "batch_size": 4, "lr": 1e-4, "cache_frozen": cached},
    }
    first = trained(root, **params)
    assert set(only_traced) == {3, 4}
    eager = trained(root, **params | {"train": {"precision": precision}})
    assert list(first) == list(eager)
    for name, tensor in eager.items():
        torch.testing.assert_close(first[name], tensor, atol=1e-4, rtol=1e-3)
    monkeypatch.setattr(checkpoint, "SAVE_INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "MAX_WRITE_SHARE", math.inf)
    saved, save = itertools.count(1), Checkpoints.save

    def killed(self: Checkpoints, state: dict[str, Any], number: int) -> None:
        save(self, state, number)
        if next(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(root, **params)
    torch.compiler.reset()
    again = trained(root, **params)
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())


def test_a_detectors_backbone_is_compiled(
    detect_project: Project, tmp_path: Path, only_traced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("fetch", "weights", "split", "augment"):
        shutil.copytree(detect_project.root / "stages" / name, tmp_path / "stages" / name)
    train_head(tiny.make_detect_params(train={"compile": True}, train_head={"epochs": 1}), tmp_path)
    assert not only_traced, "a frozen backbone has nothing to compile"
    found = []
    for compiles in (False, True):
        params = {"train": {"compile": compiles, "precision": "fp32"}, "fine_tune": {"epochs": 1, "lr": 1e-4}}
        fine_tune(tiny.make_detect_params(**params), tmp_path)
        found.append(read_model_file(tmp_path / "stages/fine-tune/model.safetensors")[0])
    assert set(only_traced) == {4}
    assert list(found[0]) == list(found[1])
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, atol=1e-4, rtol=1e-3)
