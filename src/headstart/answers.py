"""What a server's answer means: whether to ask again, when, and which state of the file it is."""

import email.utils
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp

RETRIED = frozenset({408, 425, 429, *range(500, 600)})  # proxies have numbers of their own beyond 511
LONGEST_RETRY_AFTER = 300.0  # a server that wants to be left alone for longer gets its will


class TransferError(Exception):
    """A file did not arrive. `kind` is one word for the summary, `retry` whether asking again may help."""

    def __init__(self, kind: str, reason: str, *, retry: bool = False, wait: float = 0.0, attempts: int = 99) -> None:
        super().__init__(reason)
        self.kind, self.retry, self.wait, self.attempts = kind, retry, wait, attempts


@dataclass(frozen=True)
class Validators:
    """How a server names this state of a file: what a resumed or repeated download must match."""

    etag: str = ""
    last_modified: str = ""
    length: int | None = None  # of the whole file, in bytes; None: the server does not say

    @property
    def strong(self) -> str:
        """What may stand in If-Range: a date or an ETag that promises the same bytes; empty: there is none."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


def validators(response: aiohttp.ClientResponse, start: int) -> Validators:
    """What an answer says about the whole file; `start` bytes of it are not in this answer."""
    length = None if "Content-Encoding" in response.headers else response.content_length
    return Validators(
        etag=response.headers.get("ETag", ""),
        last_modified=response.headers.get("Last-Modified", ""),
        length=None if length is None else start + length,
    )


def range_start(response: aiohttp.ClientResponse) -> int:
    """The byte that a 206 begins with; -1 if it does not say."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    first = rest.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else -1


def status_error(response: aiohttp.ClientResponse) -> TransferError:
    """The error for a status, with the pause that Retry-After asks for."""
    status, retry, wait = response.status, response.status in RETRIED, 0.0
    if retry and (after := response.headers.get("Retry-After", "")):
        wait = _seconds(after)
        if wait > LONGEST_RETRY_AFTER:
            return TransferError(f"http_{status}", f"HTTP {status}, come back in {wait:,.0f} s")
    return TransferError(f"http_{status}", f"HTTP {status} {response.reason or ''}".strip(), retry=retry, wait=wait)


def _seconds(retry_after: str) -> float:
    """Retry-After is a number of seconds or a date."""
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        until = email.utils.parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
