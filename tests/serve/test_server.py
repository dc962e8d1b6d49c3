"""`headstart serve` as a process: its errors, its socket, its end."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Project
from fakes import PNG
from headstart.base.errors import UserError
from headstart.serve.server import _accepted, _open_socket, _url_host, serve


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.onnx: no such file; make it: dvc repro"):
        serve(tmp_path, "127.0.0.1", 0)


def test_a_port_in_use_is_one_line(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port}: .*in use; name another: --port {port % 60000 + 1}"):
            serve(project.root / "stages/export", "127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "line"),
    [
        ("", "--host '': empty; give 127.0.0.1, or 0.0.0.0 for others on the network too"),
        ("192.0.2.77", "; give an address of this machine, such as --host 127.0.0.1"),
        ("no name", "; give an address of this machine, such as --host 127.0.0.1"),
    ],
)
def test_a_host_that_is_not_this_machine_is_one_line(project: Project, host: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        serve(project.root / "stages/export", host, 0)
    assert str(caught.value).endswith(line)


def test_the_address_that_is_printed_opens_in_a_browser() -> None:
    hosts = ["0.0.0.0", "::", "fe80::1", "192.168.1.5", "shop"]
    assert [_url_host(host) for host in hosts] == ["127.0.0.1", "[::1]", "[fe80::1]", "192.168.1.5", "shop"]


BODY = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + PNG + b"\r\n--b--\r\n"
HEAD = (
    f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODY)}\r\n"
    "Content-Type: multipart/form-data; boundary=b\r\nExpect: 100-continue\r\n\r\n"
).encode()


@pytest.fixture
def process(project: Project) -> Iterator[subprocess.Popen[str]]:
    source = str(Path(sys.modules["headstart"].__file__ or "").parent.parent)
    paths = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-c", "from headstart.cli import main; main()", "serve", "--port", "0"],
        cwd=project.root,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def connect(process: subprocess.Popen[str]) -> socket.socket:
    assert process.stdout
    line = process.stdout.readline()
    url = re.search(r"http://127\.0\.0\.1:(\d+)", line)
    assert url, line
    return socket.create_connection(("127.0.0.1", int(url[1])), timeout=30)


def receive_all(connection: socket.socket) -> bytes:
    response = b""
    while chunk := connection.recv(65536):
        response += chunk
    return response


def assert_ended_well(process: subprocess.Popen[str]) -> None:
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 0
    assert stderr == "", "no traceback"
    assert stdout.endswith("serve: ended\n")


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_request_in_progress_is_completed_before_the_end(process: subprocess.Popen[str], ending: int) -> None:
    with connect(process) as connection:
        connection.sendall(HEAD)
        assert connection.recv(100).startswith(b"HTTP/1.1 100"), "it has begun to read"
        process.send_signal(ending)
        time.sleep(0.3)
        connection.sendall(BODY)
        response = receive_all(connection)
    assert response.startswith(b"HTTP/1.1 200")
    (prediction,) = json.loads(response.split(b"\r\n\r\n", 1)[1])["predictions"]
    assert set(prediction["probabilities"]) == {"blue", "red"}
    assert_ended_well(process)


def test_a_body_that_has_not_arrived_at_the_end_is_not_waited_for(process: subprocess.Popen[str]) -> None:
    with connect(process) as connection:
        connection.sendall(HEAD)
        assert connection.recv(100).startswith(b"HTTP/1.1 100"), "it has begun to read"
        connection.sendall(BODY[:20])
        process.send_signal(signal.SIGTERM)
        response = receive_all(connection)
    assert response.startswith(b"HTTP/1.1 408")
    assert b"the server ends, and the request has not arrived" in response
    assert_ended_well(process)


def test_the_names_that_are_accepted_are_printed() -> None:
    assert _accepted(["localhost", "shop", "shop"]) == (
        "localhost, shop and this machine's addresses; for another name: --allow-host NAME"
    )
    assert _accepted(["localhost", "*"]).startswith("any name: every website")


def test_accepted_connections_have_tcp_nodelay() -> None:
    """They inherit it; Nagle's algorithm would cost each response 40 ms."""
    with _open_socket("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
