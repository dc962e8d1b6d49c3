"""Pictures downloaded from a local server with the faults of real ones: retries, limits, redirects, proxies."""

import asyncio
import email.utils
import re
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.fetch.http import client, download, download_cache
from headstart.fetch.http.download import download_images
from headstart.fetch.http.responses import DownloadError
from headstart.fetch.stage import check_decodable
from headstart.images.decode import configured_pil
from headstart.params.fetch import DownloadParams
from mirror import Mirror
from pictures import encoded, picture, put

QUICK = DownloadParams(backoff=0.001, timeout=2)


@pytest.fixture
def mirror(mirror: Mirror) -> Iterator[Mirror]:
    with configured_pil():
        yield mirror


def get(mirror: Mirror, *paths: str, params: DownloadParams = QUICK) -> dict[str, Path | DownloadError]:
    found = download_images([mirror.url + path for path in paths], params, check_decodable)
    assert not list((download_cache.cache_root() / "parts").glob("*")), "no partial file is left behind"
    return {url.removeprefix(mirror.url): result for url, result in found.items()}


def error(mirror: Mirror, path: str, params: DownloadParams = QUICK) -> DownloadError:
    result = get(mirror, path, params=params)[path]
    assert isinstance(result, DownloadError)
    return result


def test_pictures_arrive_once_and_stay(mirror: Mirror) -> None:
    for number in range(5):
        put(mirror.folder / f"{number}.png", seed=number)
    paths = [f"/{number}.png" for number in range(5)]
    found = get(mirror, *paths, paths[0])
    for path, result in found.items():
        assert isinstance(result, Path)
        assert result.read_bytes() == (mirror.folder / path[1:]).read_bytes()
    assert get(mirror, *paths) == found
    assert sum(mirror.requests.values()) == 5
    assert mirror.headers[0]["User-Agent"].startswith("headstart/")


def test_every_picture_arrives_despite_503s_resets_and_cuts(mirror: Mirror) -> None:
    for number in range(200):
        put(mirror.folder / f"{number}.png", seed=number)
    mirror.faults = {"503": 0.1, "reset": 0.05, "cut": 0.02, "cut_silently": 0.02}
    found = get(mirror, *(f"/{number}.png" for number in range(200)), params=QUICK.model_copy(update={"attempts": 12}))
    for path, result in found.items():
        assert isinstance(result, Path), f"{path}: {result}"
        assert result.read_bytes() == (mirror.folder / path[1:]).read_bytes()
    assert sum(mirror.requests.values()) > 220


@pytest.mark.parametrize(
    ("script", "requests", "kind"),
    [
        (["404"] * 9, 1, "http_404"),
        (["403"] * 9, 1, "http_403"),
        (["410"] * 9, 1, "http_410"),
        (["503"] * 99, 4, "http_503"),
        (["521"] * 99, 4, "http_521"),  # a proxy's "the server is down"
        (["reset"] * 99, 8, "connection"),  # aiohttp itself repeats a request when a connection breaks
        (["cut"] * 99, 4, "connection"),
        (["cut_silently"] * 99, 3, "truncated"),
    ],
)
def test_which_errors_are_retried(mirror: Mirror, script: list[str], requests: int, kind: str) -> None:
    put(mirror.folder / "a.jpg", encoded(picture(), "JPEG"))
    mirror.scripts["/a.jpg"] = script
    assert error(mirror, "/a.jpg", QUICK.model_copy(update={"attempts": 4})).kind == kind
    assert mirror.requests["/a.jpg"] == requests


@pytest.mark.parametrize("in_memory", [1, 10_000, 1_000_000])
def test_an_interrupted_picture_is_resumed(mirror: Mirror, monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    """Whether all of it is on disk, goes there half way, or stays in memory."""
    monkeypatch.setattr(download, "IN_MEMORY_BYTES", in_memory)
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)
    data = put(mirror.folder / "a.png", encoded(Image.fromarray(noise))).read_bytes()
    mirror.scripts["/a.png"] = ["cut", "503", "cut"]
    result = get(mirror, "/a.png")["/a.png"]
    assert isinstance(result, Path)
    assert result.read_bytes() == data
    starts = [int(headers["Range"][6:-1]) for headers in mirror.headers if "Range" in headers]
    assert starts[0] == starts[1] == len(data) // 2 < starts[2]


def test_an_invalid_picture_is_requested_once(mirror: Mirror) -> None:
    put(mirror.folder / "a.jpg", b"<!doctype html><title>Please log in</title>")
    assert error(mirror, "/a.jpg").kind == "web_page"
    assert error(mirror, "/gone.jpg").kind == "http_404"
    assert mirror.requests == {"/a.jpg": 1, "/gone.jpg": 1}


def test_retry_after_is_honoured_for_the_whole_host(mirror: Mirror) -> None:
    put(mirror.folder / "a.png")
    put(mirror.folder / "b.png", seed=2)
    mirror.scripts["/a.png"], mirror.retry_after = ["429"], "1"
    started = time.monotonic()
    get(mirror, "/a.png")
    assert time.monotonic() - started >= 1
    mirror.scripts["/b.png"], mirror.retry_after = ["503"], "86400"
    assert str(error(mirror, "/b.png")) == "HTTP 503, come back in 86,400 s"


def test_retry_after_may_be_a_date(mirror: Mirror) -> None:
    put(mirror.folder / "a.png")
    mirror.scripts["/a.png"] = ["503"]
    mirror.retry_after = email.utils.format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert re.fullmatch(r"HTTP 503, come back in 3,(5\d\d|600) s", str(error(mirror, "/a.png")))


def test_limits_hold(mirror: Mirror) -> None:
    mirror.latency = 0.02
    for number in range(30):
        put(mirror.folder / f"{number}.png", seed=number)
    paths = [f"/{number}.png" for number in range(30)]
    get(mirror, *paths, params=QUICK.model_copy(update={"per_host": 3}))
    assert mirror.max_concurrent == 3
    assert sum("keep-alive" in headers.get("Connection", "keep-alive") for headers in mirror.headers) == 30


def test_connections_are_reused(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    create = asyncio.base_events.BaseEventLoop.create_connection

    async def counted(*args: Any, **options: Any) -> Any:
        opened.append(args)
        return await create(*args, **options)

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "create_connection", counted)
    for number in range(30):
        put(mirror.folder / f"{number}.png", seed=number)
    get(mirror, *(f"/{number}.png" for number in range(30)), params=QUICK.model_copy(update={"per_host": 2}))
    assert len(opened) == 2


def test_size_is_limited_with_and_without_content_length(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    put(mirror.folder / "a.png", b"x" * 5000)
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    assert str(error(mirror, "/a.png")) == "5,000 bytes, more than 1,000"
    mirror.scripts["/a.png"] = ["cut_silently"]
    assert str(error(mirror, "/a.png")) == "more than 1,000 bytes"


def test_a_silent_server_times_out(mirror: Mirror) -> None:
    put(mirror.folder / "a.png")
    mirror.latency = 1
    assert error(mirror, "/a.png", DownloadParams(timeout=0.1, attempts=2, backoff=0.001)).kind == "timeout"
    assert mirror.requests["/a.png"] == 2


def test_unknown_and_invalid_hosts(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def fail_for_invalid(host: str, *args: Any, **options: Any) -> Any:
        if host.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", fail_for_invalid)
    urls = ["http://no-such-host.invalid/a.png", "http://127.0.0.1:9/a.png", "http://[/a.png"]
    found = download_images(urls, QUICK.model_copy(update={"attempts": 2}), check_decodable)
    kinds = [result.kind for result in (found[url] for url in urls) if isinstance(result, DownloadError)]
    assert kinds == ["no_host", "connection", "url"]


def test_redirects_are_followed_a_few_times_and_only_to_http(mirror: Mirror) -> None:
    put(mirror.folder / "a.png")
    mirror.redirects = {"/moved.png": "/a.png", "/round.png": "/round.png", "/file.png": "file:///etc/passwd"}
    assert isinstance(get(mirror, "/moved.png")["/moved.png"], Path)
    assert str(error(mirror, "/round.png")) == "more than 5 redirects"
    assert str(error(mirror, "/file.png")) == "a redirect to 'file:///etc/passwd', which is not http or https"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_redirect_from_a_public_to_a_private_address(
    mirror: Mirror, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`is_private` is replaced, so the local server counts as public: a redirect to it is refused on connecting."""

    async def never_private(_: object) -> bool:
        return False

    put(mirror.folder / "a.png")
    mirror.redirects = {"/moved.png": mirror.url.replace("127.0.0.1", host) + "/a.png"}
    assert isinstance(get(mirror, "/moved.png")["/moved.png"], Path), "a private server may redirect to itself"
    download_cache.cached_path(mirror.url + "/moved.png").unlink()
    monkeypatch.setattr(client, "is_private", never_private)
    assert "a redirect to the private address" in str(error(mirror, "/moved.png"))
    assert mirror.requests["/a.png"] == 1


def test_a_proxy_is_used(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    put(mirror.folder / "a.png")
    monkeypatch.setenv("http_proxy", mirror.url)
    found = download_images(["http://pictures.invalid/a.png"], QUICK, check_decodable)
    assert all(isinstance(result, Path) for result in found.values())
    assert mirror.headers[0]["Host"] == "pictures.invalid"
