"""Where the download cache is, and that old partial files are removed from it."""

import re
from pathlib import Path

import pytest

from headstart.base.errors import UserError
from headstart.fetch.http import download_cache
from headstart.fetch.http.download import download_file, download_images
from headstart.fetch.stage import check_decodable
from headstart.params.fetch import DownloadParams
from mirror import Mirror
from pictures import put


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HEADSTART_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert download_cache.cache_root() == tmp_path / ".cache/headstart"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert download_cache.cache_root() == tmp_path / "xdg/headstart"
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "own"))
    assert download_cache.cache_root() == tmp_path / "own"
    strange = "http://h/a.jpg?x=../../../etc", "http://h/..%2f..%2fa.jp/g", "http://h/a.b\\c/d.:x"
    for url in strange:
        assert download_cache.cached_path(url).parent == tmp_path / "own/downloads"


def test_old_parts_are_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    part = put(tmp_path / "parts/1-2.part", b"")
    assert download_cache.partial_folder() == part.parent
    assert part.exists()
    monkeypatch.setattr("headstart.base.files.STALE_SECONDS", -1)
    download_cache.partial_folder()
    assert not part.exists()


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_picture_that_a_disk_has_damaged_is_downloaded_anew(
    mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    urls = [f"{mirror.url}/{number}.png" for number in range(4)]
    for number in range(4):
        put(mirror.folder / f"{number}.png", seed=number)
    download_images(urls, DownloadParams(), check_decodable)
    flip_a_byte(download_cache.cached_path(urls[1]))
    download_cache.cached_path(urls[2]).write_bytes(b"")
    found = download_images(urls, DownloadParams(), check_decodable)
    for number, url in enumerate(urls):
        path = found[url]
        assert isinstance(path, Path)
        assert path.read_bytes() == (mirror.folder / f"{number}.png").read_bytes()
    assert sum(mirror.requests.values()) == 6
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    first = min(download_cache.cached_path(url) for url in urls[1:3])
    assert said == [f"warning: {first} and 1 more: damaged in the download cache; downloaded anew"]
    download_images(urls, DownloadParams(), check_decodable)
    assert sum(mirror.requests.values()) == 6
    assert "warning" not in capsys.readouterr().err


def test_a_table_that_a_disk_has_damaged_is_downloaded_anew(mirror: Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    (mirror.folder / "table.csv").write_bytes(b"a,b\n" * 1000)
    url = f"{mirror.url}/table.csv"
    path = download_file(url, DownloadParams())
    flip_a_byte(path)
    assert download_file(url, DownloadParams()).read_bytes() == b"a,b\n" * 1000
    assert f"warning: {path}: damaged in the download cache; downloaded anew" in capsys.readouterr().err


def test_a_download_of_an_earlier_version_gets_its_checksum_when_it_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    path = put(tmp_path / "downloads/a.png", b"bytes")
    assert download_cache.intact_files([path, tmp_path / "downloads/b.png"]) == {path}
    path.write_bytes(b"other")
    assert download_cache.intact_files([path]) == set()
    assert not path.exists()


def test_without_a_home_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEADSTART_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(
        UserError, match=r"^HOME: this user has no home folder .*; give one: HEADSTART_CACHE=/a/folder$"
    ):
        download_images(["http://127.0.0.1:9/a.png"], DownloadParams(), check_decodable)


def test_a_cache_that_cannot_be_written_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "file/cache"))
    words = re.escape("(Not a directory); give it another folder: HEADSTART_CACHE=/a/folder")
    with pytest.raises(UserError, match=rf"file/cache/parts: the download cache cannot be written to {words}$"):
        download_file("http://127.0.0.1:9/a.csv", DownloadParams())
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match=r"cache/parts: the download cache cannot be written to \(Permission denied\)"):
        download_images(["http://127.0.0.1:9/a.png"], DownloadParams(), check_decodable)
