"""HTTP responses interpreted: whether and when to retry, and the validators of the file's state."""

import email.utils
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp

RETRY_STATUSES = frozenset({408, 425, 429, *range(500, 600)})  # proxies use numbers of their own beyond 511
MAX_RETRY_AFTER = 300.0  # seconds; a server that asks for a longer pause is not asked again


class DownloadError(Exception):
    """A file was not downloaded.

    Attributes:
        kind: one word for the summary, such as `http_404`.
        retry: whether another attempt may succeed.
        retry_after: seconds that the server asked to wait; 0: none.
        max_attempts: most attempts for this kind of error.
    """

    def __init__(
        self, kind: str, reason: str, *, retry: bool = False, retry_after: float = 0.0, max_attempts: int = 99
    ) -> None:
        super().__init__(reason)
        self.kind, self.retry, self.retry_after, self.max_attempts = kind, retry, retry_after, max_attempts


@dataclass(frozen=True)
class Validators:
    """HTTP validators of one state of a file: a resumed or repeated download must match them."""

    etag: str = ""
    last_modified: str = ""
    length: int | None = None  # of the whole file, in bytes; None: not sent
    encoded: bool = False  # the body was compressed on its way: byte ranges and lengths are not those of the file

    @property
    def if_range(self) -> str:
        """The value for If-Range: a strong ETag, else the date of the last change; empty: it cannot be resumed."""
        if self.encoded:
            return ""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


def read_validators(response: aiohttp.ClientResponse, start: int) -> Validators:
    """The validators in a response whose body begins `start` bytes into the file."""
    encoded = response.headers.get("Content-Encoding", "").strip().lower() not in ("", "identity")
    length = None if encoded else response.content_length
    return Validators(
        etag=response.headers.get("ETag", ""),
        last_modified=response.headers.get("Last-Modified", ""),
        length=None if length is None else start + length,
        encoded=encoded,
    )


def content_range_start(response: aiohttp.ClientResponse) -> int:
    """The first byte of a 206 response within the file; -1 if the header is missing or invalid."""
    unit, _, value = response.headers.get("Content-Range", "").partition(" ")
    first = value.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else -1


def status_error(response: aiohttp.ClientResponse) -> DownloadError:
    """The error for a status, with the pause that Retry-After asks for."""
    status, retry, seconds = response.status, response.status in RETRY_STATUSES, 0.0
    if retry and (header := response.headers.get("Retry-After", "")):
        seconds = _parse_retry_after(header)
        if seconds > MAX_RETRY_AFTER:
            return DownloadError(f"http_{status}", f"HTTP {status}, come back in {seconds:,.0f} s")
    reason = f"HTTP {status} {response.reason or ''}".strip()
    return DownloadError(f"http_{status}", reason, retry=retry, retry_after=seconds)


def _parse_retry_after(header: str) -> float:
    """Seconds from now; the header is a number of seconds or a date."""
    if header.strip().isdigit():
        return float(header)
    try:
        until = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
