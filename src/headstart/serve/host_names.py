"""Which names and addresses a request may call the server by, against DNS rebinding."""

import ipaddress
import socket
from collections.abc import Iterable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from headstart.base.errors import UserError

ANY = "*"


def machine_names() -> list[str]:
    """The names of this machine: localhost, its host name, with and without domain, and `.local`."""
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    return list(dict.fromkeys(["localhost", name, short, socket.getfqdn().lower(), f"{short}.local"]))


def parse_name(text: str) -> str:
    """The name in an `--allow-host`, which may have a port: `shop.example` of `Shop.example:8000`; ANY stays.

    Raises:
        UserError: it is no name, such as a whole address or a pattern, and would match no request.
    """
    name = _without_port(text)
    if text != ANY and (not name or set(text) & set("/*@ ")):
        found = text.partition("://")[2].partition("/")[0] or text.lstrip("*.") or "shop.example"
        raise UserError(f"--allow-host {text!r}: not a name; give one as it stands in the address, such as {found}")
    return name


class HostNames:
    """ASGI middleware: a request whose Host header is another one's gets a 400.

    A foreign page whose host name resolves to this machine (DNS rebinding) could else read what the server answers:
    to the browser it is the same origin. An address is accepted if the connection came to it, and 0.0.0.0, which
    browsers connect to this machine.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self._app, self._names = app, frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and ANY not in self._names:
            host = _host_of(scope)
            if host not in self._names and not _is_own_address(host, scope):
                shown = host[:80]
                detail = f"{shown}: not a name of this server; if it is, start it with --allow-host {shown}"
                if not shown:
                    detail = "(no Host header): not a name of this server; send the one in its address"
                await JSONResponse({"detail": detail}, 400)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _host_of(scope: Scope) -> str:
    return _without_port(dict(scope["headers"]).get(b"host", b"").decode("latin-1"))


def _without_port(host: str) -> str:
    """A host without its port, in lower case; an IPv6 address without its brackets, a name without a last dot."""
    value = host.strip().lower()
    if value.startswith("["):
        return value[1:].partition("]")[0]
    return (value.rpartition(":")[0] if value.count(":") == 1 else value).rstrip(".")


def _is_own_address(host: str, scope: Scope) -> bool:
    try:
        address = ipaddress.ip_address(host)
        server = ipaddress.ip_address(str((scope.get("server") or ("",))[0]).partition("%")[0])
    except ValueError:  # a name
        return False
    server = getattr(server, "ipv4_mapped", None) or server
    return address == server or (address.is_unspecified and server.is_loopback)
