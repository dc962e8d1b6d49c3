"""Whatever bytes a client sends: a 2xx or 4xx with a sentence, or the connection is closed; no traceback in the log."""

import logging
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fakes
from headstart.serve.app import create_app
from headstart.serve.request_limits import RequestLimits
from pages import serve_app

HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
PART = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + fakes.PNG + b"\r\n--b--\r\n"
VALID = HEAD + b"Content-Length: %d\r\n\r\n" % len(PART) + PART
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    limits = RequestLimits(max_bytes=200_000, timeout_seconds=0.1)
    with serve_app(create_app(fakes.FakeDetector(), fakes.MODEL_INFO, limits=limits, hosts=["localhost"])) as url:
        parts = urlsplit(url)
        yield str(parts.hostname), int(parts.port or 0)


@pytest.fixture(autouse=True)
def no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def answer(address: tuple[str, int], *sent: bytes) -> bytes:
    """The response to bytes sent in pieces; empty if the connection was closed without one."""
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(sent[0])
        for piece in sent[1:]:
            time.sleep(0.03)
            connection.sendall(piece)
        response = b""
        connection.settimeout(0.3)  # where the request's head never ends there is no answer
        try:
            while not (response and response.endswith(body_end(response))):
                chunk = connection.recv(65536)
                if not chunk:
                    break
                response += chunk
        except (ConnectionResetError, TimeoutError):
            pass
        return response


def body_end(response: bytes) -> bytes:
    """What the response ends with when it is complete."""
    return b"}" if b"application/json" in response else b"received."


def test_a_valid_request(address: tuple[str, int]) -> None:
    assert answer(address, VALID).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("request_bytes", "status", "sentence"),
    [
        (b"\x16\x03\x01\x00\xa5" + b"x" * 160, 400, b"Invalid HTTP request"),
        (b"GET /health HTTP/9.9\r\n\r\n", 400, b"Invalid HTTP request"),
        (b"GET /health HTTP/1.1\r\n\r\n", 400, b"(no Host header): not a name of this server"),
        (b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n", 400, b"evil.example: not a name of this server; if it"),
        (b"GET /health HTTP/1.1\r\nHost: \xff[:::]\r\n\r\n", 400, b"not a name of this server"),
        (b"GET /%00 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, b"not here; the page is at /"),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, b"not here; the page is at /"),
        (b"PUT /predict HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, b"PUT /predict: not here"),
        (HEAD + b"Content-Length: abc\r\n\r\n", 400, b"Invalid HTTP request"),
        (HEAD + b"Content-Length: 99999999\r\n\r\n--b", 413, b"send fewer or smaller pictures"),
        (CHUNKED + b"ZZZ\r\nabc\r\n", 400, b"Invalid HTTP request"),
        (VALID.replace(b"boundary=b", b"boundary=c"), 400, b"Invalid multipart data"),
        (VALID.replace(b"; boundary=b", b""), 400, b"Missing boundary in multipart"),
        (VALID.replace(b'name="files"; ', b'name="other"; '), 422, b"no pictures: post them as multipart/form-data"),
        (VALID.replace(b"multipart/form-data; boundary=b", b"application/json"), 422, b"no pictures: post them as"),
    ],
)
def test_what_is_wrong_is_said(address: tuple[str, int], request_bytes: bytes, status: int, sentence: bytes) -> None:
    response = answer(address, request_bytes)
    assert response.startswith(b"HTTP/1.1 %d " % status)
    assert sentence in response


def test_nonsense_in_the_middle_of_a_body(address: tuple[str, int]) -> None:
    """The app has begun to read: the bad chunk arrives later."""
    response = answer(address, CHUNKED + b"5\r\n--b\r\n\r\n", b"ZZZ\r\n\xff\xfe\r\n")
    assert response.startswith((b"HTTP/1.1 4", b"")), response


def test_a_body_that_never_ends(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(HEAD + b"Content-Length: 999\r\n\r\n--b\r\n")
        response = b""
        while not response.endswith(b"}"):
            response += connection.recv(65536)
    assert response.startswith(b"HTTP/1.1 408")
    assert b"took more than 0.1 s to arrive" in response


def test_a_client_that_goes_away(address: tuple[str, int]) -> None:
    for size in (len(HEAD), len(VALID) - 20, len(VALID)):
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(VALID[:size])
    assert answer(address, VALID).startswith(b"HTTP/1.1 200")


# Starlette leaves a part in memory to the garbage collector when its client goes away.
@pytest.mark.filterwarnings("ignore:.*SpooledTemporaryFile:pytest.PytestUnraisableExceptionWarning")
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, len(VALID)),
    st.integers(0, 60),
    st.binary(max_size=40) | st.sampled_from([b"\r\n", b"\r\n\r\n", b"--b\r\n", b"\0", b"%00", b": ", b"Host: "]),
)
def test_any_damage_to_a_request(address: tuple[str, int], start: int, length: int, inserted: bytes) -> None:
    response = answer(address, VALID[:start] + inserted + VALID[start + length :])
    assert response == b"" or response.startswith((b"HTTP/1.1 2", b"HTTP/1.1 4"))
