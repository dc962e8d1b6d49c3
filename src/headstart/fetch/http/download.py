"""Downloads into the user's cache: many small pictures concurrently, and single large files that can be resumed."""

import asyncio
import os
import sys
import urllib.parse
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock
from pydantic import TypeAdapter, ValidationError
from yarl import URL

from headstart.base.errors import UserError
from headstart.base.files import crc32_file, write_json
from headstart.base.parallel import process_cpu_count
from headstart.base.progress import ProgressBar
from headstart.fetch.http import download_cache
from headstart.fetch.http.addresses import is_remote, local_path
from headstart.fetch.http.client import Client
from headstart.fetch.http.partial_file import PartialFile
from headstart.fetch.http.responses import DownloadError, Validators, read_validators
from headstart.images.decode import MAX_BYTES
from headstart.params.fetch import DownloadParams

IN_MEMORY_BYTES = 1_000_000  # bytes of a picture; a longer one is written to disk as it arrives
INLINE_CHECK_BYTES = 500_000  # bytes of a JPEG; a longer one, and other formats, are checked in a thread
MAX_PENDING = 512  # downloads begun and not ended, most of them waiting for a slot or between two attempts
MAX_FILE_BYTES = 50_000_000_000  # bytes of a table or tar
TOTAL_TIMEOUT_FACTOR = 10  # a picture gets this many times the timeout altogether
MEGABYTE = 1_000_000
JPEG_MAGIC = b"\xff\xd8"


def download_images(
    urls: Iterable[str], params: DownloadParams, check: Callable[[bytes], None]
) -> dict[str, Path | DownloadError]:
    """Download many small files concurrently, except those that are in the cache already.

    Args:
        urls: http and https URLs; repeated ones are requested once.
        params: the section `fetch.downloads`.
        check: called with each complete file's bytes, in a thread if that takes long; raises DownloadError if they
            are invalid.

    Returns:
        For each URL the file in the cache, or the error.
    """
    paths = {url: download_cache.cached_path(url) for url in urls}
    intact = download_cache.intact_files(paths.values())
    results: dict[str, Path | DownloadError] = {url: path for url, path in paths.items() if path in intact}
    if missing := {url: path for url, path in paths.items() if url not in results}:
        results |= asyncio.run(_download_images(missing, params, check))
    return results


async def _download_images(
    paths: dict[str, Path], params: DownloadParams, check: Callable[[bytes], None]
) -> dict[str, Path | DownloadError]:
    parts, pending = download_cache.partial_folder(), asyncio.Semaphore(MAX_PENDING)
    results: dict[str, Path | DownloadError] = {}
    with ProgressBar("fetch: downloads", len(paths)) as bar, ThreadPoolExecutor(process_cpu_count()) as threads:
        async with (
            Client(params, MAX_BYTES, params.timeout * TOTAL_TIMEOUT_FACTOR) as client,
            asyncio.TaskGroup() as group,
        ):

            async def download_one(number: int, url: str, path: Path) -> None:
                def verify() -> None:
                    data = body.read()
                    check(data)
                    download_cache.record_checksum(path, zlib.crc32(data))
                    body.move_to(path)

                async def on_complete(body: PartialFile) -> None:
                    if body.size < INLINE_CHECK_BYTES and body.read().startswith(JPEG_MAGIC):
                        verify()  # takes half a millisecond: handing it to a thread costs more
                    else:
                        await asyncio.get_running_loop().run_in_executor(threads, verify)

                # The name is this task's alone: two projects may download the same picture at the same time.
                body = PartialFile(parts / f"{os.getpid()}-{number}.part", IN_MEMORY_BYTES)
                try:
                    await client.download(url, body, on_complete=on_complete)
                    results[url] = path
                except DownloadError as error:
                    body.clear()
                    results[url] = error
                finally:
                    pending.release()
                bar.advance()

            for number, (url, path) in enumerate(paths.items()):
                await pending.acquire()
                group.create_task(download_one(number, url, path))
    return results


def download_file(url: str, params: DownloadParams) -> Path:
    """One large file: by http(s) through the cache, or where it is (file:// or a path).

    A file in the cache is used if the server's file is still the same; an interrupted download is resumed.

    Raises:
        UserError: the file does not exist or was not downloaded.
    """
    if not is_remote(url):
        path = local_path(url)
        if not path.is_file():
            raise UserError(f"{url}: no such file; change the address of the mirror")
        return path
    download_cache.make_folders()
    path = download_cache.cached_path(url)
    with FileLock(path.with_name(path.name + ".lock")):  # two projects may download it at the same time
        try:
            asyncio.run(_download_file(url, path, params))
        except DownloadError as error:
            raise UserError(
                f"{url}: {error}; try again (what has arrived is kept), or name a mirror that can be reached"
            ) from None
    return path


async def _download_file(url: str, path: Path, params: DownloadParams) -> None:
    part, state_file = path.with_name(path.name + ".part"), path.with_name(path.name + ".json")
    state = _read_state(state_file)
    if state and part.exists() and part.stat().st_size == state.length:
        _keep(part, path)  # killed after the last byte
    async with Client(params, MAX_FILE_BYTES) as client:
        if state and download_cache.intact_files([path]):
            if await _is_current(client, url, path, state):
                return
            state = None
        size = part.stat().st_size if part.exists() else 0
        name = urllib.parse.urlsplit(url).path.rpartition("/")[2]
        with ProgressBar(f"fetch: {name} (MB)", (state.length or 0) // MEGABYTE if state and size else 0) as bar:
            received = size if state else 0

            def on_start(validators: Validators) -> None:
                path.unlink(missing_ok=True)
                write_json(state_file, {"url": url, **asdict(validators)})
                bar.total = (validators.length or 0) // MEGABYTE

            def on_chunk(count: int) -> None:
                nonlocal received
                received += count
                bar.advance(received // MEGABYTE - bar.count)

            await client.download(url, PartialFile(part), resume=state, on_start=on_start, on_chunk=on_chunk)
    _keep(part, path)


def _keep(part: Path, path: Path) -> None:
    download_cache.record_checksum(path, crc32_file(part))
    part.replace(path)


def _read_state(state_file: Path) -> Validators | None:
    try:
        return TypeAdapter(Validators).validate_json(state_file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None  # never begun, or killed while it was written: begin anew


async def _is_current(client: Client, url: str, path: Path, state: Validators) -> bool:
    """Whether the file in the cache is the server's current one; True with a warning if the server does not answer."""
    if state.length is not None and path.stat().st_size != state.length:
        return False
    headers = {"If-None-Match": state.etag} if state.etag else {"If-Modified-Since": state.last_modified}
    try:
        async with client.get_response(URL(url), {name: value for name, value in headers.items() if value}) as response:
            if response.status == 304:
                return True
            if response.status == 200:
                current = read_validators(response, 0)
                same = current.etag == state.etag and (state.etag or current.last_modified == state.last_modified)
                return bool(same) and current.length == state.length
            reason = f"HTTP {response.status}"
    except DownloadError as error:
        reason = str(error)
    print(f"fetch: {url}: cannot check for changes ({reason}); the copy in the cache is used", file=sys.stderr)
    return True
