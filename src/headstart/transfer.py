"""One file over HTTP: retries, redirects, byte ranges, limits. What comes out is whole, or an error with a reason."""

import asyncio
import importlib.metadata
import random
import time
import urllib.request
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from headstart.addresses import AddressError, is_private, proxy_for, public_socket, redirected
from headstart.answers import TransferError, Validators, range_start, status_error, validators
from headstart.body import Body
from headstart.fetch_params import DownloadParams

REDIRECTS = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS = 5
LONGEST_WAIT = 60.0  # seconds between two attempts
PROGRESS = 1_000_000  # bytes in one attempt after which counting begins anew


class Client:
    """One event loop's connections, with their limits: `async with Client(params) as client: await client.save(…)`."""

    def __init__(self, params: DownloadParams, max_bytes: int, total_timeout: float | None = None) -> None:
        self.params, self.max_bytes = params, max_bytes
        self._timeout = aiohttp.ClientTimeout(
            total=total_timeout, sock_connect=params.timeout, sock_read=params.timeout
        )
        self._slots = asyncio.Semaphore(params.connections)
        self._host_slots: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(params.per_host))
        self._quiet_until: dict[str, float] = defaultdict(float)  # hosts that asked for a pause
        self._proxies = urllib.request.getproxies()  # HTTPS_PROXY and the like
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._open = await self._stack.enter_async_context(self._session(aiohttp.TCPConnector(limit=0)))
        guarded = aiohttp.TCPConnector(limit=0, socket_factory=public_socket)
        self._guarded = await self._stack.enter_async_context(self._session(guarded))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def _session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        headers = {
            "User-Agent": f"headstart/{importlib.metadata.version('headstart')} (a data set for a classifier; aiohttp)",
            "Accept-Encoding": "identity",  # lengths and byte ranges are then those of the file
        }
        return aiohttp.ClientSession(
            connector=connector,
            headers=headers,
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=2**18,
        )

    async def save(
        self,
        url: str,
        body: Body,
        *,
        resume: Validators | None = None,
        started: Callable[[Validators], None] = lambda _: None,
        arrived: Callable[[int], None] = lambda _: None,
        finish: Callable[[Body], Awaitable[None]] | None = None,
    ) -> None:
        """Download into `body`, with retries, until it has its whole length and `finish`, if given, is content.

        Args:
            url: http or https.
            body: what it holds is kept and completed if `resume` still is the server's state.
            resume: the state of the file that `body` is the beginning of.
            started: told the state of the file before its first byte is written.
            arrived: told how many bytes have come.
            finish: awaited with the complete body; raises TransferError if it is not in order.

        Raises:
            TransferError: it did not arrive, after all attempts.
        """
        attempt, state, target = 0, resume, _parsed(url)
        host = str(target.host)

        def begun(found: Validators) -> None:
            nonlocal state
            state = found
            started(found)

        while True:
            attempt += 1
            size = body.size
            try:
                await self._polite(host)
                async with self._host_slots[host], self._slots:
                    await self._attempt(target, body, state if size else None, begun, arrived)
                    # Still in the slot: what has arrived and is not verified would be lost if the process is killed.
                    if finish:
                        await _finished(body, finish)
            except TransferError as error:
                if body.size - size > PROGRESS:
                    attempt = 1  # it moves on: a file of gigabytes may be cut off often
                if not error.retry or attempt >= min(self.params.attempts, error.attempts):
                    raise
                await asyncio.sleep(self._pause(host, attempt, error))
            else:
                return

    def _pause(self, host: str, attempt: int, error: TransferError) -> float:
        """Full jitter: many that failed together must not come back together."""
        if error.wait:
            self._quiet_until[host] = max(self._quiet_until[host], time.monotonic() + error.wait)
        longest = min(LONGEST_WAIT, self.params.backoff * 2 ** (attempt - 1))
        return random.uniform(0, longest)  # noqa: S311 (no secret)

    async def _polite(self, host: str) -> None:
        while (wait := self._quiet_until[host] - time.monotonic()) > 0:
            await asyncio.sleep(wait)

    async def _attempt(
        self,
        url: URL,
        body: Body,
        state: Validators | None,
        started: Callable[[Validators], None],
        arrived: Callable[[int], None],
    ) -> None:
        start = body.size if state and state.strong else 0
        headers = {"Range": f"bytes={start}-", "If-Range": state.strong} if state and start else {}
        async with self.answer(url, headers) as response:
            if response.status == 416 or (response.status == 206 and range_start(response) != start):
                body.clear()
                raise TransferError("range", "the server's byte range is not the one asked for", retry=True)
            if response.status not in (200, 206):
                raise status_error(response)
            found = validators(response, start if response.status == 206 else 0)
            if (found.length or 0) > self.max_bytes:
                raise TransferError("too_large", f"{found.length:,} bytes, more than {self.max_bytes:,}")
            started(found)
            if response.status == 200 and body.size:
                body.clear()
            try:
                async for chunk in response.content.iter_any():
                    body.write(chunk)
                    if body.size > self.max_bytes:
                        raise TransferError("too_large", f"more than {self.max_bytes:,} bytes")
                    arrived(len(chunk))
            finally:
                body.close()
        if found.length is not None and body.size != found.length:
            reason = f"{body.size:,} of {found.length:,} bytes arrived"
            body.clear()
            raise TransferError("truncated", reason, retry=True)

    @asynccontextmanager
    async def answer(self, url: URL, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer at the end of at most five redirects, none of them from a public to a private address."""
        try:
            async with AsyncExitStack() as stack:
                guarded, target = False, url
                for _ in range(MAX_REDIRECTS + 1):
                    proxy = proxy_for(target, self._proxies)
                    # A proxy connects for us: its own address, often a private one, is all that a guard would see.
                    session = self._open if proxy or not guarded else self._guarded
                    response = await stack.enter_async_context(
                        session.get(target, headers=headers, proxy=proxy, allow_redirects=False)
                    )
                    if response.status not in REDIRECTS:
                        yield response
                        return
                    target = redirected(target, response.headers.get("Location", ""))
                    guarded = guarded or not await is_private(url)
                raise TransferError("redirect", f"more than {MAX_REDIRECTS} redirects")
        except AddressError as error:
            raise TransferError("redirect", str(error)) from None
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
            raise TransferError("tls", f"no safe connection: {error}") from None
        except aiohttp.ClientConnectorDNSError:
            # Most often a site that is no more, sometimes a moment without network.
            raise TransferError("no_host", f"no host {url.host!r}", retry=True, attempts=3) from None
        except TimeoutError:
            raise TransferError("timeout", f"no answer in {self.params.timeout:g} s", retry=True) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise TransferError("connection", f"{type(error).__name__}: {error}", retry=True) from None


async def _finished(body: Body, finish: Callable[[Body], Awaitable[None]]) -> None:
    try:
        await finish(body)
    except TransferError:
        body.clear()  # what is wrong is not built upon
        raise


def _parsed(url: str) -> URL:
    try:
        parsed = URL(url)
    except ValueError:
        parsed = URL()
    if not parsed.host:
        raise TransferError("url", "not an address that can be asked")
    return parsed
