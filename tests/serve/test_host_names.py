"""The Host header: this machine's names and the address that the connection came to, and no other."""

import asyncio
import socket

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from headstart.base.errors import UserError
from headstart.serve.host_names import HostNames, machine_names, parse_name


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
        ("localhost.:8000", "127.0.0.1"),
        ("0.0.0.0:8000", "127.0.0.1"),
        ("[::]:8000", "::1"),
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
        ("0.0.0.0", "192.168.1.5"),
        (".", "127.0.0.1"),
        ("127.0.0.2@evil.example", "127.0.0.2"),
        ("", "127.0.0.1"),
        (None, "127.0.0.1"),
    ],
)
def test_all_others_are_refused(host: str | None, server: str) -> None:
    assert status(host, server) == 400


def test_any_name_if_that_is_asked_for() -> None:
    assert status("evil.example", "127.0.0.1", "*") == 200


@pytest.mark.parametrize(
    ("text", "name"),
    [("Shop.Example:8000", "shop.example"), ("shop.example.", "shop.example"), ("[fe80::1]:80", "fe80::1"), ("*", "*")],
)
def test_a_name_may_have_a_port(text: str, name: str) -> None:
    assert parse_name(text) == name


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("https://shop.example/page", "shop.example"),
        ("*.shop.example", "shop.example"),
        ("", "shop.example"),
        ("a b", "a b"),
    ],
)
def test_what_would_match_no_request_is_no_name(text: str, found: str) -> None:
    with pytest.raises(UserError, match=r"--allow-host '.*': not a name; give one as it stands") as caught:
        parse_name(text)
    assert str(caught.value).endswith(f"such as {found}")
