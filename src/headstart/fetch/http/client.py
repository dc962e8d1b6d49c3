"""HTTP client for one file at a time: retries, redirects, byte ranges, limits; a complete file or an error."""

import asyncio
import importlib.metadata
import random
import time
import urllib.request
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from headstart.fetch.http.addresses import RedirectError, is_private, open_public_socket, proxy_for, resolve_redirect
from headstart.fetch.http.content_encoding import Decoder
from headstart.fetch.http.partial_file import PartialFile
from headstart.fetch.http.responses import DownloadError, Validators, content_range_start, read_validators, status_error
from headstart.params.fetch import DownloadParams

REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS = 5
MAX_BACKOFF = 60.0  # seconds between two attempts
PROGRESS_BYTES = 1_000_000  # an attempt that received more than this resets the count of attempts


class Client:
    """One event loop's connections and their limits: `async with Client(params, limit) as c: await c.download(…)`."""

    def __init__(self, params: DownloadParams, max_bytes: int, total_timeout: float | None = None) -> None:
        """Prepare; connections are opened within `async with`.

        Args:
            params: the section `fetch.downloads`.
            max_bytes: largest file.
            total_timeout: seconds for one attempt in all; None: unlimited, as long as bytes arrive.
        """
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
        self._any_session = await self._stack.enter_async_context(self._new_session(aiohttp.TCPConnector(limit=0)))
        public_only = aiohttp.TCPConnector(limit=0, socket_factory=open_public_socket)
        self._public_session = await self._stack.enter_async_context(self._new_session(public_only))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def _new_session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
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
            auto_decompress=False,  # aiohttp takes a gzip stream that ends too early for a complete one
        )

    async def download(
        self,
        url: str,
        body: PartialFile,
        *,
        resume: Validators | None = None,
        on_start: Callable[[Validators], None] = lambda _: None,
        on_chunk: Callable[[int], None] = lambda _: None,
        on_complete: Callable[[PartialFile], Awaitable[None]] | None = None,
    ) -> None:
        """Download into `body`, with retries.

        Args:
            url: http or https.
            body: the bytes it has already are completed if the server's file still matches `resume`.
            resume: validators of the file that `body` is the beginning of.
            on_start: called with the file's validators before its first byte is written.
            on_chunk: called with the number of bytes received.
            on_complete: awaited with the complete body; raises DownloadError if its content is invalid.

        Raises:
            DownloadError: it was not downloaded, after all attempts.
        """
        attempt, state, target = 0, resume, _parse_url(url)
        host = str(target.host)

        def remember_state(validators: Validators) -> None:
            nonlocal state
            state = validators
            on_start(validators)

        while True:
            attempt += 1
            size = body.size
            try:
                await self._wait_for_host(host)
                async with self._host_slots[host], self._slots:
                    await self._download_once(target, body, state if size else None, remember_state, on_chunk)
                    # Still in the slot: bytes that are received and not verified are lost if the process is killed.
                    if on_complete:
                        await _run_completion(body, on_complete)
            except DownloadError as error:
                if body.size - size > PROGRESS_BYTES:
                    attempt = 1  # it makes progress: a file of gigabytes may be cut off often
                if not error.retry or attempt >= min(self.params.attempts, error.max_attempts):
                    raise
                await asyncio.sleep(self._backoff(host, attempt, error))
            else:
                return

    def _backoff(self, host: str, attempt: int, error: DownloadError) -> float:
        """Seconds to wait: exponential, with full jitter, so that many that failed together do not retry together."""
        if error.retry_after:
            self._quiet_until[host] = max(self._quiet_until[host], time.monotonic() + error.retry_after)
        longest = min(MAX_BACKOFF, self.params.backoff * 2 ** (attempt - 1))
        return random.uniform(0, longest)  # noqa: S311 (no secret)

    async def _wait_for_host(self, host: str) -> None:
        while (wait := self._quiet_until[host] - time.monotonic()) > 0:
            await asyncio.sleep(wait)

    async def _download_once(
        self,
        url: URL,
        body: PartialFile,
        state: Validators | None,
        on_start: Callable[[Validators], None],
        on_chunk: Callable[[int], None],
    ) -> None:
        start = body.size if state and state.if_range else 0
        headers = {"Range": f"bytes={start}-", "If-Range": state.if_range} if state and start else {}
        async with self.get_response(url, headers) as response:
            if response.status == 416 or (response.status == 206 and content_range_start(response) != start):
                body.clear()
                raise DownloadError("range", "the server's byte range is not the one asked for", retry=True)
            if response.status not in (200, 206):
                raise status_error(response)
            validators = read_validators(response, start if response.status == 206 else 0)
            if (validators.length or 0) > self.max_bytes:
                raise DownloadError("too_large", f"{validators.length:,} bytes, more than {self.max_bytes:,}")
            on_start(validators)
            if response.status == 200 and body.size:
                body.clear()
            decoder = Decoder(response)

            def write(chunks: Iterator[bytes]) -> None:
                for chunk in chunks:
                    body.write(chunk)
                    if body.size > self.max_bytes:
                        raise DownloadError("too_large", f"more than {self.max_bytes:,} bytes")
                    on_chunk(len(chunk))

            try:
                async for received in response.content.iter_any():
                    write(decoder.decode(received))
                write(decoder.finish())
            finally:
                body.close()
        if validators.length is not None and body.size != validators.length:
            reason = f"{body.size:,} of {validators.length:,} bytes arrived"
            body.clear()
            raise DownloadError("truncated", reason, retry=True)

    @asynccontextmanager
    async def get_response(self, url: URL, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response after at most five redirects, none of them from a public to a private address."""
        try:
            async with AsyncExitStack() as stack:
                public_only, target = False, url
                for _ in range(MAX_REDIRECTS + 1):
                    proxy = proxy_for(target, self._proxies)
                    # A proxy connects for us: its own address, often a private one, is all that a check would see.
                    session = self._any_session if proxy or not public_only else self._public_session
                    response = await stack.enter_async_context(
                        session.get(target, headers=headers, proxy=proxy, allow_redirects=False)
                    )
                    if response.status not in REDIRECT_STATUSES:
                        yield response
                        return
                    target = resolve_redirect(target, response.headers.get("Location", ""))
                    public_only = public_only or not await is_private(url)
                raise DownloadError("redirect", f"more than {MAX_REDIRECTS} redirects")
        except RedirectError as error:
            raise DownloadError("redirect", str(error)) from None
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
            raise DownloadError("tls", f"no secure connection: {error}") from None
        except aiohttp.ClientConnectorDNSError:
            # Most often a site that no longer exists, sometimes a moment without network.
            raise DownloadError("no_host", f"no host {url.host!r}", retry=True, max_attempts=3) from None
        except TimeoutError:
            raise DownloadError("timeout", f"no answer in {self.params.timeout:g} s", retry=True) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise DownloadError("connection", f"{type(error).__name__}: {error}", retry=True) from None


async def _run_completion(body: PartialFile, on_complete: Callable[[PartialFile], Awaitable[None]]) -> None:
    try:
        await on_complete(body)
    except DownloadError:
        body.clear()  # the next attempt must not append to an invalid file
        raise


def _parse_url(url: str) -> URL:
    try:
        parsed = URL(url)
    except ValueError:
        parsed = URL()
    if not parsed.host:
        raise DownloadError("url", "not a valid URL")
    return parsed
