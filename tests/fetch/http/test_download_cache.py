"""Where the download cache is, and that old partial files are removed from it."""

from pathlib import Path

import pytest

from headstart.fetch.http import download_cache
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
