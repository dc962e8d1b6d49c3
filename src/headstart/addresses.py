"""Which addresses may be asked: http and https, and never a private one because a public one said so."""

import asyncio
import ipaddress
import socket
import urllib.request
from typing import Any

from yarl import URL


class AddressError(Exception):
    """A redirect that is not followed; the text is the reason."""


def redirected(base: URL, location: str) -> URL:
    """Where a redirect leads.

    Raises:
        AddressError: nowhere that is http or https.
    """
    try:
        target = base.join(URL(location))
    except ValueError:
        raise AddressError(f"a redirect to {location!r}") from None
    if not location or target.scheme not in ("http", "https") or not target.host:
        raise AddressError(f"a redirect to {location!r}, which is not http or https")
    return target


def proxy_for(url: URL, proxies: dict[str, str]) -> str | None:
    """The one of `urllib.request.getproxies()` that a URL is asked through, if any; NO_PROXY makes exceptions."""
    proxy = proxies.get(url.scheme)
    return None if proxy and urllib.request.proxy_bypass(url.host or "") else proxy


async def is_private(url: URL) -> bool:
    """Whether one of a host's addresses is on this machine or in a private network."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(not is_public(str(entry[4][0])) for entry in found)


def is_public(address: str) -> bool:
    """Whether an IP address is of the open internet, also when IPv6 wraps one of IPv4."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_global


def public_socket(info: Any) -> socket.socket:
    """A socket factory for aiohttp, called with the very address that is about to be connected to.

    A name that was public when it was looked at and is private now does not get past this.

    Raises:
        AddressError: the address is private.
    """
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        raise AddressError(f"a redirect to the private address {address[0]}")
    return socket.socket(family, kind, protocol)
