"""One tiny project, run once through all stages; tests that only look at it share it."""

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any, cast

import pytest
import torch
from hypothesis import settings
from pydantic import BaseModel
from xdist.scheduler import LoadScopeScheduling

import chromium
import tiny
from headstart.params.root import Params
from mirror import Mirror, serving

TESTS = Path(__file__).parent
settings.register_profile("repeatable", derandomize=True, deadline=None)  # a failure is one for everybody
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread_a_worker() -> None:
    """Workers share the cores; and a stage in a process with OMP_NUM_THREADS=1 must give the bits of one in a test."""
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Project:
    """A finished project, and which keys of params.yaml each stage looked at."""

    root: Path
    params: Params
    used: dict[str, set[str]]


class _Spy:
    """Params that note which keys are read: `seed`, or `train_head.lr`."""

    def __init__(self, section: BaseModel, prefix: str, seen: set[str]) -> None:
        self._section, self._prefix, self._seen = section, prefix, seen

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._section, name)
        method = getattr(type(self._section), name, None)
        if isinstance(method, FunctionType) and method.__module__.startswith("headstart."):
            return MethodType(method, self)  # what it reads is noted too
        if name not in type(self._section).model_fields:
            return value
        if isinstance(value, BaseModel) and not self._prefix:
            return _Spy(value, f"{name}.", self._seen)
        self._seen.add(f"{self._prefix}{name}")
        return value


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Look, do not touch: copy it to change it."""
    root = tmp_path_factory.mktemp("project")
    tiny.make_pictures(root)
    return run_spied(root, tiny.make_params())


@pytest.fixture(scope="session")
def detect_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same for a detector."""
    root = tmp_path_factory.mktemp("detect_project")
    tiny.make_boxes(root)
    return run_spied(root, tiny.make_detect_params())


def run_spied(root: Path, params: Params) -> Project:
    used: dict[str, set[str]] = {}
    for stage in tiny.STAGES:
        used[stage] = set()
        tiny.run(root, spied(params, used[stage]), stage)
    return Project(root, params, used)


def spied(params: Params, seen: set[str]) -> Params:
    """The same params, which add the keys that are read to `seen`."""
    return cast(Params, _Spy(params, "", seen))


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A server on this machine for the folder `served`, and a download cache of its own."""
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    (tmp_path / "served").mkdir()
    with serving(Mirror(tmp_path / "served")) as mirror:
        yield mirror


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Chromium]:
    """A page in headless Chromium."""
    with chromium.Chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


# The longest first: one that came last would be waited for.
LONGEST = (
    "test_pipeline",
    "detectors",
    "models/test_torchvision_detectors",
    "test_sample",
    "training/test_distributed",
    "models/heads/test_fasterrcnn",
    "test_recipes",
)


@cache
def group(file: str) -> str:
    """A file is for one process, and files that use `detect_project` are for the same one: it is made once."""
    path = TESTS.parent / file
    if "detect_project" in path.read_text(encoding="utf-8"):
        return "detectors"
    return path.relative_to(TESTS).with_suffix("").as_posix()


class Groups(LoadScopeScheduling):  # type: ignore[misc]
    """In place of `--dist loadgroup`, which does nothing under pytest 9.2 (pytest-dev/pytest-xdist#1386)."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid.partition("::")[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        name = group(item.nodeid.partition("::")[0])
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """What the imports have left, a million objects, stays: no collection need look through it."""
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # triton complains of objects that outlive it
