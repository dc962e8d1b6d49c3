"""Clients of the app: with the tiny project's classifier, and with a fake detector under small limits."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

import fakes
from conftest import Project
from headstart.serve.app import create_app
from headstart.serve.request_limits import RequestLimits
from headstart.serve.server import create_model_app


@pytest.fixture(scope="module")
def client(project: Project) -> Iterator[TestClient]:
    with TestClient(create_model_app(project.root / "stages/export")) as client:
        yield client


@pytest.fixture(scope="module")
def detector_client() -> Iterator[TestClient]:
    limits = RequestLimits(max_bytes=20_000, max_files=3, max_pixels=10_000, max_requests=2, timeout_seconds=5)
    app = create_app(fakes.FakeDetector(), fakes.MODEL_INFO, limits=limits, hosts=["testserver"])
    with TestClient(app) as client:
        yield client
