"""URLs: remote or local, which redirects are followed, and which addresses are private."""

import asyncio
import ipaddress
import socket
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from yarl import URL


class RedirectError(Exception):
    """A redirect that is not followed; the text is the reason."""


def is_remote(url: str) -> bool:
    """Whether this is an http or https URL, which has to be downloaded."""
    return url.lower().startswith(("http://", "https://"))


def local_path(url: str) -> Path:
    """The path of a file:// URL; anything else is a path already."""
    parts = urllib.parse.urlsplit(url)
    return Path(urllib.parse.unquote(parts.path)) if parts.scheme == "file" else Path(url)


def resolve_redirect(base: URL, location: str) -> URL:
    """The absolute URL of a `Location` header.

    Raises:
        RedirectError: it is not an http or https URL.
    """
    try:
        target = base.join(URL(location))
    except ValueError:
        raise RedirectError(f"a redirect to {location!r}") from None
    if not location or target.scheme not in ("http", "https") or not target.host:
        raise RedirectError(f"a redirect to {location!r}, which is not http or https")
    return target


def proxy_for(url: URL, proxies: dict[str, str]) -> str | None:
    """The proxy to use for a URL, of those in `urllib.request.getproxies()`; None where NO_PROXY excludes its host."""
    proxy = proxies.get(url.scheme)
    return None if proxy and urllib.request.proxy_bypass(url.host or "") else proxy


async def is_private(url: URL) -> bool:
    """Whether one of a host's addresses is on this machine or in a private network."""
    loop = asyncio.get_running_loop()
    try:
        addresses = await loop.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(not is_public(str(address[4][0])) for address in addresses)


def is_public(address: str) -> bool:
    """Whether an IP address is globally reachable; an IPv4 address mapped into IPv6 counts as itself."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_global


def open_public_socket(info: Any) -> socket.socket:
    """A socket factory for aiohttp, called with the address that is about to be connected to.

    So a host whose name resolved to a public address before, and to a private one now, is refused too.

    Raises:
        RedirectError: the address is private.
    """
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        raise RedirectError(f"a redirect to the private address {address[0]}")
    return socket.socket(family, kind, protocol)
