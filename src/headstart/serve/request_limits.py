"""ASGI middleware that limits requests: bytes, time to arrive, and how many are processed at once."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True)
class RequestLimits:
    """A request beyond any of them gets a 4xx response with one sentence."""

    max_bytes: int = 64_000_000  # of a request, all its pictures together
    max_files: int = 32
    max_pixels: int = 50_000_000  # of a picture: 150 MB decoded
    max_requests: int = 64  # in progress or queued
    timeout_seconds: float = 60.0  # for a request to arrive


class Ending:
    """That the server is to end: bodies that are still arriving then have a few seconds left."""

    def __init__(self, seconds: float = 5.0) -> None:
        self._seconds = seconds
        self._begun = False
        self._waiting: set[asyncio.Timeout] = set()

    def begin(self) -> None:
        """From now on a body has `seconds` to arrive. To be called in the server's event loop."""
        self._begun = True
        for timeout in self._waiting:
            self._shorten(timeout)

    @contextmanager
    def limits(self, timeout: asyncio.Timeout) -> Iterator[None]:
        """The wait that `timeout` limits, for a part of a body."""
        self._waiting.add(timeout)
        if self._begun:
            self._shorten(timeout)
        try:
            yield
        finally:
            self._waiting.discard(timeout)

    def _shorten(self, timeout: asyncio.Timeout) -> None:
        latest = asyncio.get_running_loop().time() + self._seconds
        timeout.reschedule(min(latest, timeout.when() or latest))


class RequestLimiter:
    """ASGI middleware for POST requests: counts those in progress, and the bytes of each body as they arrive.

    A body that declares its size is rejected before it is read; one that does not, when it passes the limit.
    """

    def __init__(self, app: ASGIApp, limits: RequestLimits, ending: Ending | None = None) -> None:
        self._app, self._limits, self._ending = app, limits, ending or Ending()
        self._in_progress = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._limits.max_bytes:
            await _rejection(413, self._too_large())(scope, receive, send)
        elif self._in_progress >= self._limits.max_requests:
            detail = f"{self._limits.max_requests} requests are in progress already: try again in a second"
            await _rejection(429, detail, {"Retry-After": "1"})(scope, receive, send)
        else:
            self._in_progress += 1
            try:
                await self._app(scope, self._limited(receive), send)
            finally:
                self._in_progress -= 1

    def _limited(self, receive: Receive) -> Receive:
        """`receive` of one request, which raises a 408 or 413 beyond the limits."""
        limits = self._limits
        deadline = asyncio.get_running_loop().time() + limits.timeout_seconds
        size = 0
        complete = False

        async def limited_receive() -> Message:
            nonlocal size, complete
            if complete:  # the only message after the body is that the client has disconnected
                return await receive()
            try:
                async with asyncio.timeout_at(deadline) as timeout:
                    with self._ending.limits(timeout):
                        message = await receive()
            except TimeoutError:
                detail = f"the request took more than {limits.timeout_seconds:g} s to arrive"
                if (timeout.when() or deadline) < deadline:  # not by the clock: a timer may fire a moment early
                    detail = "the server ends, and the request has not arrived"
                raise HTTPException(408, detail) from None
            size += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if size > limits.max_bytes:
                raise HTTPException(413, self._too_large())
            return message

        return limited_receive

    def _too_large(self) -> str:
        return f"a request may have {self._limits.max_bytes:,} bytes: send fewer or smaller pictures"


def _rejection(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, {**(headers or {}), "Connection": "close"})
