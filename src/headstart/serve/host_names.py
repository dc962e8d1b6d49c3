"""Which names and addresses a request may call the server by, against DNS rebinding."""

import ipaddress
import socket
from collections.abc import Iterable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

ANY = "*"


def machine_names() -> list[str]:
    """The names of this machine: localhost, its host name, with and without domain, and `.local`."""
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    return list(dict.fromkeys(["localhost", name, short, socket.getfqdn().lower(), f"{short}.local"]))


class HostNames:
    """ASGI middleware: a request whose Host header is another one's gets a 400.

    A foreign page whose host name resolves to this machine (DNS rebinding) could else read what the server answers:
    to the browser it is the same origin. An address is accepted if the connection came to it.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self._app, self._names = app, frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and ANY not in self._names:
            host = _host_of(scope)
            if host not in self._names and not _is_own_address(host, scope):
                shown = host[:80] or "(no Host header)"
                detail = f"{shown}: not a name of this server; if it is, start it with --allow-host {shown}"
                await JSONResponse({"detail": detail}, 400)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _host_of(scope: Scope) -> str:
    """The Host header without its port, in lower case; an IPv6 address without its brackets."""
    header: bytes = dict(scope["headers"]).get(b"host", b"")
    value = header.decode("latin-1").strip().lower()
    if value.startswith("["):
        return value[1:].partition("]")[0]
    return value.rpartition(":")[0] if value.count(":") == 1 else value


def _is_own_address(host: str, scope: Scope) -> bool:
    try:
        address = ipaddress.ip_address(host)
        server = ipaddress.ip_address(str((scope.get("server") or ("",))[0]).partition("%")[0])
    except ValueError:  # a name
        return False
    return address == (getattr(server, "ipv4_mapped", None) or server)
