"""The second process has a limit in all: a server that answers a byte at a time holds no stage."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from headstart.tracking.recorder import recorded_stage
from tracking.test_runs import leave_files, make_params

HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"


def drip(connection: socket.socket) -> None:
    """An answer that would take a day."""
    with connection, suppress(OSError):
        connection.recv(65536)
        connection.sendall(HEADERS)
        while True:
            connection.sendall(b" ")
            time.sleep(0.1)


@pytest.fixture
def dripping_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server on this machine."""
    for variable in list(os.environ):
        if variable.startswith(("MLFLOW_", "DVC_")) or variable == "RANK":
            monkeypatch.delenv(variable)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    threading.Thread(target=drip, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def test_a_dripping_server_costs_the_limit_and_one_warning(
    dripping_server: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    uri = f"http://user:pass@word@127.0.0.1:{dripping_server}"
    params = make_params(tracking={"uri": uri, "timeout": 2})
    begin = time.monotonic()
    with recorded_stage("fetch", params, tmp_path):
        leave_files(tmp_path, "fetch")
    assert time.monotonic() - begin < 45, "MLflow's imports, then two seconds"
    out, err = capfd.readouterr()
    assert out == ""
    assert err == (
        "warning: MLflow did not record fetch: it took more than 2 s (tracking.timeout); the stage's own files are "
        "complete, and the next stage records them too\n"
    )
    assert (tmp_path / "stages/fetch/metrics.json").is_file()


def test_a_process_that_hangs_before_it_listens_is_ended_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    hanging = tmp_path / "python"
    hanging.write_text("#!/bin/sh\nexec sleep 100\n")
    hanging.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(hanging))
    monkeypatch.setattr("headstart.tracking.recorder.IMPORT_SECONDS", 0.1)
    begin = time.monotonic()
    with recorded_stage("fetch", make_params(tracking={"timeout": 0.1}), tmp_path):
        pass
    assert time.monotonic() - begin < 20
    assert capfd.readouterr().err.startswith("warning: MLflow did not record fetch: it took more than 0.1 s ")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the limit is not of mapped memory")
def test_the_memory_of_an_answer_is_limited() -> None:
    code = "from headstart.tracking.recorder import limit_memory; limit_memory(600 << 20); bytearray(1 << 30)"
    source = str(Path(sys.modules["headstart"].__file__ or "").parent.parent)
    environment = {**os.environ, "PYTHONPATH": source}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "MemoryError"


def test_a_machine_that_cannot_be_described_costs_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error: unknown error\nmore of it")

    monkeypatch.setattr("headstart.tracking.recorder.describe_environment", broken)
    monkeypatch.setattr("sys.executable", "/bin/true")
    with recorded_stage("fetch", make_params(), tmp_path):
        pass
    line = "warning: MLflow: fetch: the machine is not described: CUDA error: unknown error\n"
    assert capfd.readouterr().err == line
