"""One tiny project, run once through all stages; tests that only look at it share it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import settings
from pydantic import BaseModel

import tiny
from headstart.params import Params
from mirror import Mirror, serving

settings.register_profile("repeatable", derandomize=True, deadline=None)  # a failure is one for everybody
settings.load_profile("repeatable")


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
        tiny.run(root, cast(Params, _Spy(params, "", used[stage])), stage)
    return Project(root, params, used)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A server on this machine for the folder `served`, and a download cache of its own."""
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    (tmp_path / "served").mkdir()
    with serving(Mirror(tmp_path / "served")) as mirror:
        yield mirror


@pytest.hookimpl(tryfirst=True)  # before xdist looks for the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file is for one process, and files that look at `detect_project` are for the same one: it is made once.

    The longest first: one that came last would be waited for.
    """
    detectors = {item.path for item in items if "detect_project" in getattr(item, "fixturenames", ())}
    longest = ("test_pipeline", "detectors", "test_whole", "test_recipes", "test_fine_tune", "test_tracking")

    def group(item: pytest.Item) -> str:
        return "detectors" if item.path in detectors else item.path.stem

    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))
    items.sort(key=lambda item: longest.index(group(item)) if group(item) in longest else len(longest))
