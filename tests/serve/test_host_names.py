"""The Host header: this machine's names and the address that the connection came to, and no other."""

import asyncio
import socket

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from headstart.serve.host_names import HostNames, machine_names


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("ok")(scope, receive, send)


def status(host: str | None, server: str, *names: str) -> int:
    found: list[int] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            found.append(message["status"])

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    headers = [] if host is None else [(b"host", host.encode("latin-1"))]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "server": (server, 8000)}
    asyncio.run(HostNames(app, [*machine_names(), *names])(scope, receive, send))
    return found[0]


@pytest.mark.parametrize(
    ("host", "server"),
    [
        ("localhost", "127.0.0.1"),
        ("LOCALHOST:8000", "127.0.0.1"),
        (socket.gethostname(), "192.168.1.5"),
        (f"{socket.gethostname()}:8000", "192.168.1.5"),
        ("127.0.0.2:8000", "127.0.0.2"),
        ("192.168.1.5", "192.168.1.5"),
        ("192.168.1.5:8000", "::ffff:192.168.1.5"),
        ("[fe80::1]:8000", "fe80::1%eth0"),
        ("[::1]", "::1"),
        ("shop.example", "10.0.0.1"),
    ],
)
def test_names_and_addresses_of_this_machine(host: str, server: str) -> None:
    assert status(host, server, "shop.example") == 200


@pytest.mark.parametrize(
    ("host", "server"),
    [
        ("evil.example", "127.0.0.1"),
        ("evil.example:8000", "192.168.1.5"),
        ("localhost.evil.example", "127.0.0.1"),
        ("127.0.0.1.evil.example", "127.0.0.1"),
        ("10.0.0.1", "192.168.1.5"),
        ("127.0.0.2@evil.example", "127.0.0.2"),
        ("", "127.0.0.1"),
        (None, "127.0.0.1"),
    ],
)
def test_all_others_are_refused(host: str | None, server: str) -> None:
    assert status(host, server) == 400


def test_any_name_if_that_is_asked_for() -> None:
    assert status("evil.example", "127.0.0.1", "*") == 200
