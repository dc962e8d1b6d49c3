"""Downloads into the shared cache: many small pictures, and single large tables and tars that can be resumed."""

import asyncio
import os
import sys
import urllib.parse
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock
from pydantic import TypeAdapter, ValidationError
from yarl import URL

from headstart import cache
from headstart.answers import TransferError, Validators, validators
from headstart.body import Body
from headstart.door import MAX_BYTES
from headstart.errors import UserError
from headstart.fetch_params import DownloadParams
from headstart.files import write_json
from headstart.pool import cores
from headstart.progress import Bar
from headstart.transfer import Client

IN_MEMORY = 1_000_000  # bytes of a picture; a longer one goes to disk as it comes
AT_ONCE = 500_000  # bytes of a JPEG; a longer one, and other formats, are checked in a thread
IN_FLIGHT = 512  # downloads begun and not ended, most of them waiting for a slot or between two attempts
LARGEST = 50_000_000_000  # bytes of a table or tar
SLOWEST = 10  # a picture gets this many times the timeout altogether
MEGABYTE = 1_000_000
JPEG = b"\xff\xd8"


def is_remote(url: str) -> bool:
    """Whether this is an address to download from."""
    return url.lower().startswith(("http://", "https://"))


def local_path(url: str) -> Path:
    """The path that a file:// address means; anything else is a path already."""
    parts = urllib.parse.urlsplit(url)
    return Path(urllib.parse.unquote(parts.path)) if parts.scheme == "file" else Path(url)


def pictures(
    urls: Iterable[str], params: DownloadParams, check: Callable[[bytes], None]
) -> dict[str, Path | TransferError]:
    """Download many small files, concurrently; those already in the cache are not asked for again.

    Args:
        urls: http and https addresses; repeated ones are asked for once.
        params: the section `fetch.downloads`.
        check: called with each complete file's bytes, in a thread if that takes long; raises TransferError if they
            are not in order.

    Returns:
        For each URL the file in the cache, or why there is none.
    """
    paths = {url: cache.path_of(url) for url in urls}
    found: dict[str, Path | TransferError] = {url: path for url, path in paths.items() if path.exists()}
    if missing := {url: path for url, path in paths.items() if url not in found}:
        found |= asyncio.run(_pictures(missing, params, check))
    return found


async def _pictures(
    paths: dict[str, Path], params: DownloadParams, check: Callable[[bytes], None]
) -> dict[str, Path | TransferError]:
    parts, begun = cache.parts(), asyncio.Semaphore(IN_FLIGHT)
    found: dict[str, Path | TransferError] = {}
    with Bar("fetch: downloads", len(paths)) as bar, ThreadPoolExecutor(cores()) as threads:
        async with Client(params, MAX_BYTES, params.timeout * SLOWEST) as client, asyncio.TaskGroup() as group:

            async def one(number: int, url: str, path: Path) -> None:
                def verify() -> None:
                    check(body.read())
                    body.move(path)

                async def finish(body: Body) -> None:
                    if body.size < AT_ONCE and body.read().startswith(JPEG):
                        verify()  # half a millisecond: handing it over costs more
                    else:
                        await asyncio.get_running_loop().run_in_executor(threads, verify)

                # Named for this task alone: two projects may want the same picture at the same time.
                body = Body(parts / f"{os.getpid()}-{number}.part", IN_MEMORY)
                try:
                    await client.save(url, body, finish=finish)
                    found[url] = path
                except TransferError as error:
                    body.clear()
                    found[url] = error
                finally:
                    begun.release()
                bar.advance()

            for number, (url, path) in enumerate(paths.items()):
                await begun.acquire()
                group.create_task(one(number, url, path))
    return found


def large(url: str, params: DownloadParams) -> Path:
    """One large file, by http(s) through the cache, or where it lies (file:// or a path).

    A file in the cache is used if the server says that it still is the same; a broken-off download is continued.

    Raises:
        UserError: the file is not there or did not arrive.
    """
    if not is_remote(url):
        path = local_path(url)
        if not path.is_file():
            raise UserError(f"{url}: no such file; change the address of the mirror")
        return path
    path = cache.path_of(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(path.name + ".lock")):  # two projects may want it at the same time
        try:
            asyncio.run(_large(url, path, params))
        except TransferError as error:
            raise UserError(
                f"{url}: {error}; try again (what has arrived is kept), or name a mirror that can be reached"
            ) from None
    return path


async def _large(url: str, path: Path, params: DownloadParams) -> None:
    part, states = path.with_name(path.name + ".part"), path.with_name(path.name + ".json")
    state = _read_state(states)
    if state and part.exists() and part.stat().st_size == state.length:
        part.replace(path)  # killed when all had arrived
    async with Client(params, LARGEST) as client:
        if path.exists() and state:
            if await _is_current(client, url, path, state):
                return
            state = None
        size = part.stat().st_size if part.exists() else 0
        name = urllib.parse.urlsplit(url).path.rpartition("/")[2]
        with Bar(f"fetch: {name} (MB)", (state.length or 0) // MEGABYTE if state and size else 0) as bar:
            got = size if state else 0

            def started(found: Validators) -> None:
                path.unlink(missing_ok=True)
                write_json(states, {"url": url, **asdict(found)})
                bar.total = (found.length or 0) // MEGABYTE

            def arrived(count: int) -> None:
                nonlocal got
                got += count
                bar.advance(got // MEGABYTE - bar.count)

            await client.save(url, Body(part), resume=state, started=started, arrived=arrived)
    part.replace(path)


def _read_state(states: Path) -> Validators | None:
    try:
        return TypeAdapter(Validators).validate_json(states.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None  # never begun, or killed while it was written: begin anew


async def _is_current(client: Client, url: str, path: Path, state: Validators) -> bool:
    """Whether the file in the cache is what the server has now; a server that does not answer does not stop us."""
    if state.length is not None and path.stat().st_size != state.length:
        return False
    headers = {"If-None-Match": state.etag} if state.etag else {"If-Modified-Since": state.last_modified}
    try:
        async with client.answer(URL(url), {name: value for name, value in headers.items() if value}) as response:
            if response.status == 304:
                return True
            if response.status == 200:
                found = validators(response, 0)
                same = found.etag == state.etag and (state.etag or found.last_modified == state.last_modified)
                return bool(same) and found.length == state.length
            reason = f"HTTP {response.status}"
    except TransferError as error:
        reason = str(error)
    print(f"fetch: {url}: not asked whether it has changed ({reason}); the copy in the cache is used", file=sys.stderr)
    return True
