"""Large files: cached, revalidated, resumed."""

from pathlib import Path

import numpy as np
import pytest

from headstart.base.errors import UserError
from headstart.fetch.http import download_cache
from headstart.fetch.http.download import download_file
from headstart.params.fetch import DownloadParams
from mirror import Mirror
from pictures import put

QUICK = DownloadParams(backoff=0.001, timeout=2)


def test_a_large_file_is_cached_and_revalidated(mirror: Mirror) -> None:
    put(mirror.folder / "boxes.csv", b"a,b\n" * 1000)
    url = f"{mirror.url}/boxes.csv"
    path = download_file(url, QUICK)
    assert path.read_bytes() == b"a,b\n" * 1000
    assert download_file(url, QUICK) == path
    assert mirror.headers[1]["If-None-Match"]
    put(mirror.folder / "boxes.csv", b"a,c\n" * 1000)
    assert download_file(url, QUICK).read_bytes() == b"a,c\n" * 1000
    path.write_bytes(b"cut")
    assert download_file(url, QUICK).read_bytes() == b"a,c\n" * 1000


def test_without_etags_the_length_decides(mirror: Mirror) -> None:
    mirror.etags = False
    put(mirror.folder / "boxes.csv", b"a,b\n" * 1000)
    url = f"{mirror.url}/boxes.csv"
    path = download_file(url, QUICK)
    first = path.stat().st_mtime_ns
    assert download_file(url, QUICK).stat().st_mtime_ns == first
    put(mirror.folder / "boxes.csv", b"a,b\n" * 1001)
    assert len(download_file(url, QUICK).read_bytes()) == 4004


def test_the_cached_copy_is_used_when_the_server_fails(mirror: Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    put(mirror.folder / "boxes.csv", b"a,b\n")
    url = f"{mirror.url}/boxes.csv"
    path = download_file(url, QUICK)
    mirror.scripts["/boxes.csv"] = ["503"]
    assert download_file(url, QUICK) == path
    assert "cannot check for changes (HTTP 503); the copy in the cache is used" in capsys.readouterr().err


def test_a_large_file_is_resumed_by_byte_ranges(mirror: Mirror) -> None:
    data = bytes(range(256)) * 20_000
    put(mirror.folder / "images.tar", data)
    mirror.scripts["/images.tar"] = ["cut"] * 3
    assert download_file(f"{mirror.url}/images.tar", QUICK).read_bytes() == data
    starts = [int(headers["Range"][6:-1]) for headers in mirror.headers if "Range" in headers]
    assert len(starts) == 3
    assert 0 < starts[0] < starts[1] < starts[2]


def test_a_later_run_resumes_the_download(mirror: Mirror) -> None:
    data = bytes(range(256)) * 20_000
    put(mirror.folder / "images.tar", data)
    url, once = f"{mirror.url}/images.tar", QUICK.model_copy(update={"attempts": 1})
    part = download_cache.cached_path(url).with_name(download_cache.cached_path(url).name + ".part")
    mirror.scripts["/images.tar"] = ["cut"]
    with pytest.raises(UserError):
        download_file(url, once)
    size = part.stat().st_size
    assert 0 < size < len(data)
    assert download_file(url, once).read_bytes() == data
    assert mirror.headers[-1]["Range"] == f"bytes={size}-"
    download_cache.cached_path(url).rename(part)  # killed after the last byte
    assert download_file(url, once).read_bytes() == data
    assert "Range" not in mirror.headers[-1]


def test_a_file_that_changed_meanwhile_is_downloaded_anew(mirror: Mirror) -> None:
    put(mirror.folder / "images.tar", b"old" * 50_000)
    mirror.scripts["/images.tar"] = ["cut"] * 2
    url = f"{mirror.url}/images.tar"
    with pytest.raises(UserError, match=r"try again \(what has arrived is kept\)"):
        download_file(url, QUICK.model_copy(update={"attempts": 2}))
    put(mirror.folder / "images.tar", b"new" * 60_000)
    assert download_file(url, QUICK).read_bytes() == b"new" * 60_000
    assert "If-Range" in mirror.headers[-1]


def test_a_body_in_gzip_counts_as_what_it_becomes(mirror: Mirror) -> None:
    """A cut one begins anew: byte ranges are of the compressed body, and what has arrived is not."""
    mirror.gzip = True
    data = bytes(np.random.default_rng(0).integers(0, 16, 3_000_000, np.uint8))
    put(mirror.folder / "boxes.csv", data)
    url = f"{mirror.url}/boxes.csv"
    mirror.scripts["/boxes.csv"] = ["cut", "cut"]
    assert download_file(url, QUICK).read_bytes() == data
    assert not any("Range" in headers for headers in mirror.headers)
    assert download_file(url, QUICK).read_bytes() == data
    assert mirror.requests["/boxes.csv"] == 4, "revalidated, not downloaded again"


def test_a_body_in_gzip_that_ends_too_early_is_no_file(mirror: Mirror) -> None:
    mirror.gzip = True
    put(mirror.folder / "boxes.csv", bytes(np.random.default_rng(0).integers(0, 16, 3_000_000, np.uint8)))
    mirror.scripts["/boxes.csv"] = ["cut_silently"] * 8
    with pytest.raises(UserError, match="try again"):
        download_file(f"{mirror.url}/boxes.csv", QUICK)


def test_without_ranges_the_download_begins_anew(mirror: Mirror) -> None:
    mirror.ranges = False
    put(mirror.folder / "images.tar", b"abc" * 50_000)
    mirror.scripts["/images.tar"] = ["cut"] * 2
    assert download_file(f"{mirror.url}/images.tar", QUICK).read_bytes() == b"abc" * 50_000


def test_local_files_are_not_copied(tmp_path: Path) -> None:
    path = put(tmp_path / "a b/boxes.csv")
    for url in (path.as_uri(), str(path)):
        assert download_file(url, QUICK) == path
    with pytest.raises(UserError, match="no such file; change the address of the mirror"):
        download_file((tmp_path / "gone.csv").as_uri(), QUICK)
