"""What a request may cost: its size, its time, and how many of them there are."""

import asyncio
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True)
class Limits:
    """Beyond any of them the answer is a 4xx with a sentence."""

    bytes: int = 64_000_000  # of a request, all its pictures together
    files: int = 32
    pixels: int = 50_000_000  # of a picture: 150 MB decoded
    requests: int = 64  # at work or waiting
    seconds: float = 60.0  # for a request to arrive


class Guard:
    """ASGI middleware that counts: POSTs at once, and the bytes of a body as they come in.

    A body that declares its size is refused before it is read; one that does not, where it passes the limit.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self._busy = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._limits.bytes:
            await _refusal(413, self._too_large())(scope, receive, send)
        elif self._busy >= self._limits.requests:
            said = f"{self._limits.requests} requests are being answered already: try again in a second"
            await _refusal(429, said, {"Retry-After": "1"})(scope, receive, send)
        else:
            self._busy += 1
            try:
                await self._app(scope, self._counted(receive), send)
            finally:
                self._busy -= 1

    def _counted(self, receive: Receive) -> Receive:
        deadline = asyncio.get_running_loop().time() + self._limits.seconds
        size = 0
        arrived = False

        async def counted() -> Message:
            nonlocal size, arrived
            if arrived:  # what comes now is only that the client has gone
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"the request took more than {self._limits.seconds:g} s to arrive") from None
            size += len(message.get("body", b""))
            arrived = not message.get("more_body", False)
            if size > self._limits.bytes:
                raise HTTPException(413, self._too_large())
            return message

        return counted

    def _too_large(self) -> str:
        return f"a request may have {self._limits.bytes:,} bytes: send fewer or smaller pictures"


def _refusal(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, {**(headers or {}), "Connection": "close"})
