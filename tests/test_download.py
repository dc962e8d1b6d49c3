"""Downloads from a server on this machine that fails in all the ways of real ones."""

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

from headstart import addresses, cache, download, transfer
from headstart.answers import TransferError
from headstart.door import pil_set_up
from headstart.errors import UserError
from headstart.fetch import decodable
from headstart.fetch_params import DownloadParams
from mirror import Mirror
from pictures import encoded, picture, put

QUICK = DownloadParams(backoff=0.001, timeout=2)


@pytest.fixture
def mirror(mirror: Mirror) -> Iterator[Mirror]:
    with pil_set_up():
        yield mirror


def get(mirror: Mirror, *paths: str, params: DownloadParams = QUICK) -> dict[str, Path | TransferError]:
    found = download.pictures([mirror.url + path for path in paths], params, decodable)
    assert not list((cache.folder() / "parts").glob("*")), "nothing half is left behind"
    return {url.removeprefix(mirror.url): answer for url, answer in found.items()}


def error(mirror: Mirror, path: str, params: DownloadParams = QUICK) -> TransferError:
    answer = get(mirror, path, params=params)[path]
    assert isinstance(answer, TransferError)
    return answer


def test_pictures_arrive_once_and_stay(mirror: Mirror) -> None:
    for number in range(5):
        put(mirror.folder / f"{number}.png", seed=number)
    paths = [f"/{number}.png" for number in range(5)]
    found = get(mirror, *paths, paths[0])
    for path, answer in found.items():
        assert isinstance(answer, Path)
        assert answer.read_bytes() == (mirror.folder / path[1:]).read_bytes()
    assert get(mirror, *paths) == found
    assert sum(mirror.asked.values()) == 5
    assert mirror.headers[0]["User-Agent"].startswith("headstart/")


def test_every_picture_arrives_through_503s_resets_and_cuts(mirror: Mirror) -> None:
    for number in range(200):
        put(mirror.folder / f"{number}.png", seed=number)
    mirror.faults = {"503": 0.1, "reset": 0.05, "cut": 0.02, "cut_silently": 0.02}
    found = get(mirror, *(f"/{number}.png" for number in range(200)), params=QUICK.model_copy(update={"attempts": 12}))
    for path, answer in found.items():
        assert isinstance(answer, Path), f"{path}: {answer}"
        assert answer.read_bytes() == (mirror.folder / path[1:]).read_bytes()
    assert sum(mirror.asked.values()) > 220


@pytest.mark.parametrize(
    ("script", "asked", "kind"),
    [
        (["404"] * 9, 1, "http_404"),
        (["403"] * 9, 1, "http_403"),
        (["410"] * 9, 1, "http_410"),
        (["503"] * 99, 4, "http_503"),
        (["521"] * 99, 4, "http_521"),  # a proxy's "the server is down"
        (["reset"] * 99, 8, "connection"),  # aiohttp itself asks a second time when a connection breaks
        (["cut"] * 99, 4, "connection"),
        (["cut_silently"] * 99, 3, "truncated"),
    ],
)
def test_what_is_asked_again_and_what_is_not(mirror: Mirror, script: list[str], asked: int, kind: str) -> None:
    put(mirror.folder / "a.jpg", encoded(picture(), "JPEG"))
    mirror.scripts["/a.jpg"] = script
    assert error(mirror, "/a.jpg", QUICK.model_copy(update={"attempts": 4})).kind == kind
    assert mirror.asked["/a.jpg"] == asked


@pytest.mark.parametrize("in_memory", [1, 10_000, 1_000_000])
def test_a_picture_that_is_cut_off_is_continued(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    """Whether it is all on disk, goes there half way, or is held in memory."""
    monkeypatch.setattr(download, "IN_MEMORY", in_memory)
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)
    data = put(mirror.folder / "a.png", encoded(Image.fromarray(noise))).read_bytes()
    mirror.scripts["/a.png"] = ["cut", "503", "cut"]
    answer = get(mirror, "/a.png")["/a.png"]
    assert isinstance(answer, Path)
    assert answer.read_bytes() == data
    starts = [int(headers["Range"][6:-1]) for headers in mirror.headers if "Range" in headers]
    assert starts[0] == starts[1] == len(data) // 2 < starts[2]


def test_what_is_no_picture_is_asked_for_once(mirror: Mirror) -> None:
    put(mirror.folder / "a.jpg", b"<!doctype html><title>Please log in</title>")
    assert error(mirror, "/a.jpg").kind == "web_page"
    assert error(mirror, "/gone.jpg").kind == "http_404"
    assert mirror.asked == {"/a.jpg": 1, "/gone.jpg": 1}


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
    assert mirror.most_at_once == 3
    assert sum("keep-alive" in headers.get("Connection", "keep-alive") for headers in mirror.headers) == 30


def test_connections_are_kept(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_size_is_bounded_announced_or_not(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    put(mirror.folder / "a.png", b"x" * 5000)
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    assert str(error(mirror, "/a.png")) == "5,000 bytes, more than 1,000"
    mirror.scripts["/a.png"] = ["cut_silently"]
    assert str(error(mirror, "/a.png")) == "more than 1,000 bytes"


def test_a_server_that_says_nothing_times_out(mirror: Mirror) -> None:
    put(mirror.folder / "a.png")
    mirror.latency = 1
    assert error(mirror, "/a.png", DownloadParams(timeout=0.1, attempts=2, backoff=0.001)).kind == "timeout"
    assert mirror.asked["/a.png"] == 2


def test_hosts_that_are_not_there(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = socket.getaddrinfo

    def nobody(host: str, *args: Any, **options: Any) -> Any:
        if host.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    urls = ["http://no-such-host.invalid/a.png", "http://127.0.0.1:9/a.png", "http://[/a.png"]
    found = download.pictures(urls, QUICK.model_copy(update={"attempts": 2}), decodable)
    kinds = [answer.kind for answer in (found[url] for url in urls) if isinstance(answer, TransferError)]
    assert kinds == ["no_host", "connection", "url"]


def test_redirects_are_followed_a_few_times_and_only_to_http(mirror: Mirror) -> None:
    put(mirror.folder / "a.png")
    mirror.redirects = {"/moved.png": "/a.png", "/round.png": "/round.png", "/file.png": "file:///etc/passwd"}
    assert isinstance(get(mirror, "/moved.png")["/moved.png"], Path)
    assert str(error(mirror, "/round.png")) == "more than 5 redirects"
    assert str(error(mirror, "/file.png")) == "a redirect to 'file:///etc/passwd', which is not http or https"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_public_address_cannot_send_us_to_a_private_one(
    mirror: Mirror, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server here is taken for public: then a redirect back to this machine is refused where it would connect."""

    async def public(_: object) -> bool:
        return False

    put(mirror.folder / "a.png")
    mirror.redirects = {"/moved.png": mirror.url.replace("127.0.0.1", host) + "/a.png"}
    assert isinstance(get(mirror, "/moved.png")["/moved.png"], Path), "a private server may redirect to itself"
    cache.path_of(mirror.url + "/moved.png").unlink()
    monkeypatch.setattr(transfer, "is_private", public)
    assert "a redirect to the private address" in str(error(mirror, "/moved.png"))
    assert mirror.asked["/a.png"] == 1


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2a00:1450:4001::8a", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("100.64.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
    ],
)
def test_private_addresses(address: str, public: bool) -> None:
    assert addresses.is_public(address) is public


def test_a_proxy_is_asked(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    put(mirror.folder / "a.png")
    monkeypatch.setenv("http_proxy", mirror.url)
    found = download.pictures(["http://pictures.invalid/a.png"], QUICK, decodable)
    assert all(isinstance(answer, Path) for answer in found.values())
    assert mirror.headers[0]["Host"] == "pictures.invalid"


def test_a_large_file_is_kept_and_asked_about(mirror: Mirror) -> None:
    put(mirror.folder / "boxes.csv", b"a,b\n" * 1000)
    url = f"{mirror.url}/boxes.csv"
    path = download.large(url, QUICK)
    assert path.read_bytes() == b"a,b\n" * 1000
    assert download.large(url, QUICK) == path
    assert mirror.headers[1]["If-None-Match"]
    put(mirror.folder / "boxes.csv", b"a,c\n" * 1000)
    assert download.large(url, QUICK).read_bytes() == b"a,c\n" * 1000
    path.write_bytes(b"cut")
    assert download.large(url, QUICK).read_bytes() == b"a,c\n" * 1000


def test_without_etags_the_length_tells(mirror: Mirror) -> None:
    mirror.etags = False
    put(mirror.folder / "boxes.csv", b"a,b\n" * 1000)
    url = f"{mirror.url}/boxes.csv"
    path = download.large(url, QUICK)
    first = path.stat().st_mtime_ns
    assert download.large(url, QUICK).stat().st_mtime_ns == first
    put(mirror.folder / "boxes.csv", b"a,b\n" * 1001)
    assert len(download.large(url, QUICK).read_bytes()) == 4004


def test_a_copy_in_the_cache_serves_when_the_server_does_not(
    mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    put(mirror.folder / "boxes.csv", b"a,b\n")
    url = f"{mirror.url}/boxes.csv"
    path = download.large(url, QUICK)
    mirror.scripts["/boxes.csv"] = ["503"]
    assert download.large(url, QUICK) == path
    assert "not asked whether it has changed (HTTP 503); the copy in the cache is used" in capsys.readouterr().err


def test_a_large_file_is_continued_by_byte_ranges(mirror: Mirror) -> None:
    data = bytes(range(256)) * 20_000
    put(mirror.folder / "images.tar", data)
    mirror.scripts["/images.tar"] = ["cut"] * 3
    assert download.large(f"{mirror.url}/images.tar", QUICK).read_bytes() == data
    starts = [int(headers["Range"][6:-1]) for headers in mirror.headers if "Range" in headers]
    assert len(starts) == 3
    assert 0 < starts[0] < starts[1] < starts[2]


def test_a_run_goes_on_where_the_one_before_was_stopped(mirror: Mirror) -> None:
    data = bytes(range(256)) * 20_000
    put(mirror.folder / "images.tar", data)
    url, once = f"{mirror.url}/images.tar", QUICK.model_copy(update={"attempts": 1})
    part = cache.path_of(url).with_name(cache.path_of(url).name + ".part")
    mirror.scripts["/images.tar"] = ["cut"]
    with pytest.raises(UserError):
        download.large(url, once)
    size = part.stat().st_size
    assert 0 < size < len(data)
    assert download.large(url, once).read_bytes() == data
    assert mirror.headers[-1]["Range"] == f"bytes={size}-"
    cache.path_of(url).rename(part)  # killed after the last byte
    assert download.large(url, once).read_bytes() == data
    assert "Range" not in mirror.headers[-1]


def test_a_file_that_changed_meanwhile_begins_anew(mirror: Mirror) -> None:
    put(mirror.folder / "images.tar", b"old" * 50_000)
    mirror.scripts["/images.tar"] = ["cut"] * 2
    url = f"{mirror.url}/images.tar"
    with pytest.raises(UserError, match=r"try again \(what has arrived is kept\)"):
        download.large(url, QUICK.model_copy(update={"attempts": 2}))
    put(mirror.folder / "images.tar", b"new" * 60_000)
    assert download.large(url, QUICK).read_bytes() == b"new" * 60_000
    assert "If-Range" in mirror.headers[-1]


def test_a_server_without_ranges_begins_anew(mirror: Mirror) -> None:
    mirror.ranges = False
    put(mirror.folder / "images.tar", b"abc" * 50_000)
    mirror.scripts["/images.tar"] = ["cut"] * 2
    assert download.large(f"{mirror.url}/images.tar", QUICK).read_bytes() == b"abc" * 50_000


def test_files_of_this_machine_stay_where_they_are(tmp_path: Path) -> None:
    path = put(tmp_path / "a b/boxes.csv")
    for url in (path.as_uri(), str(path)):
        assert download.large(url, QUICK) == path
    with pytest.raises(UserError, match="no such file; change the address of the mirror"):
        download.large((tmp_path / "gone.csv").as_uri(), QUICK)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HEADSTART_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folder() == tmp_path / ".cache/headstart"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg/headstart"
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "own"))
    assert cache.folder() == tmp_path / "own"
    strange = "http://h/a.jpg?x=../../../etc", "http://h/..%2f..%2fa.jp/g", "http://h/a.b\\c/d.:x"
    for url in strange:
        assert cache.path_of(url).parent == tmp_path / "own/downloads"


def test_old_parts_are_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    part = put(tmp_path / "parts/1-2.part", b"")
    assert cache.parts() == part.parent
    assert part.exists()
    monkeypatch.setattr(cache, "DAY", -1)
    cache.parts()
    assert not part.exists()
