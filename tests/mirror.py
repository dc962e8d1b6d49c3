"""A local HTTP server with the faults of real ones: latency, 503s, resets, truncated bodies, redirects.

`python tests/mirror.py FOLDER` serves a folder in a process of its own and prints the URL.
"""

import argparse
import asyncio
import functools
import gzip
import hashlib
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

from aiohttp import web


@dataclass
class Mirror:
    """A folder as http://127.0.0.1:PORT, and the faults of its responses.

    Attributes:
        folder: what is served.
        latency: seconds before each response.
        faults: their shares of the responses: `{"503": 0.1, "reset": 0.05, "cut": 0.02, "cut_silently": 0.01}`.
        retry_after: the header of a 503 or 429.
        ranges: whether Range requests are honoured.
        etags: whether responses have an ETag.
        gzip: bodies are sent compressed (Content-Encoding), asked for or not; ranges are of the compressed bytes.
        requests: how many there were, by path.
        headers: of every request, in order.
        scripts: by path, the faults of its next responses, in order.
        redirects: path -> where it redirects to.
        max_concurrent: the largest number of requests at once.
    """

    folder: Path
    latency: float = 0.0
    faults: dict[str, float] = field(default_factory=dict)
    retry_after: str = ""
    ranges: bool = True
    etags: bool = True
    gzip: bool = False
    requests: Counter[str] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)
    scripts: dict[str, list[str]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    max_concurrent: int = 0
    url: str = ""
    _concurrent: int = 0
    _random: random.Random = field(default_factory=lambda: random.Random(0))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests[request.path] += 1
        self.headers.append(dict(request.headers))
        self._concurrent += 1
        self.max_concurrent = max(self.max_concurrent, self._concurrent)
        try:
            if self.latency:
                await asyncio.sleep(self.latency)
            return await self._respond(request)
        finally:
            self._concurrent -= 1

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        if request.path in self.redirects:
            return web.Response(status=302, headers={"Location": self.redirects[request.path]})
        path = self.folder / request.path.lstrip("/")
        if not path.is_file():
            return web.Response(status=404, text="<html>not here</html>", content_type="text/html")
        fault = self._fault(request.path)
        if fault.isdigit():
            headers = {"Retry-After": self.retry_after} if self.retry_after else {}
            return web.Response(status=int(fault), headers=headers)
        if fault == "reset":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return await self._send(request, *_content(path, path.stat().st_mtime_ns), fault)

    def _fault(self, path: str) -> str:
        if self.scripts.get(path):
            return self.scripts[path].pop(0)
        sample = self._random.random()
        for fault, share in self.faults.items():
            sample -= share
            if sample < 0:
                return fault
        return ""

    async def _send(self, request: web.Request, data: bytes, etag: str, fault: str) -> web.StreamResponse:
        etag = etag if self.etags else ""
        headers = {"ETag": etag} if etag else {}
        if self.gzip:
            data = gzip.compress(data, mtime=0)
            headers["Content-Encoding"] = "gzip"
        if etag and request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers=headers)
        start, status = 0, 200
        requested = request.headers.get("Range", "")
        if self.ranges and requested and request.headers.get("If-Range", etag) == etag:
            start, status = int(requested.removeprefix("bytes=").partition("-")[0]), 206
            if start >= len(data):
                return web.Response(status=416)
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        if not fault:
            return web.Response(status=status, headers=headers, body=body)
        response = web.StreamResponse(status=status, headers=headers)
        if fault == "cut":
            response.content_length = len(body)
        else:  # no Content-Length: the client takes the end of the connection for the end of the file
            response.force_close()
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        if fault == "cut":
            await asyncio.sleep(0.01)
            assert request.transport is not None
            request.transport.abort()
        return response


@functools.lru_cache(4096)
def _content(path: Path, _: int) -> tuple[bytes, str]:
    """A file and its ETag, cached until the file changes."""
    data = path.read_bytes()
    return data, f'"{hashlib.md5(data).hexdigest()}"'


@contextmanager
def serving(mirror: Mirror) -> Iterator[Mirror]:
    """Serve a mirror in a thread of this process, at `mirror.url`."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(_start(mirror), loop).result()
    try:
        yield mirror
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def mirror_process(folder: Path, latency: float = 0.0, **faults: float) -> Iterator[str]:
    """The URL of a mirror in a process of its own, so that it does not compete for this interpreter's lock."""
    command = [sys.executable, __file__, str(folder), "--latency", str(latency)]
    command += [f"--fault={fault}={share}" for fault, share in faults.items()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def _start(mirror: Mirror) -> web.AppRunner:
    application = web.Application()
    application.router.add_get("/{path:.*}", mirror.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    mirror.url = f"http://{host}:{port}"
    return runner


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--fault", action="append", default=[])
    arguments = parser.parse_args()
    faults = {name: float(share) for name, _, share in (fault.partition("=") for fault in arguments.fault)}
    mirror = Mirror(arguments.folder, arguments.latency, faults)
    await _start(mirror)
    print(mirror.url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
