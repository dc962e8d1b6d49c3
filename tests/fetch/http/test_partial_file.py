"""Partial files: the same bytes in memory and on disk."""

from pathlib import Path

import pytest

from headstart.fetch.http.partial_file import PartialFile


@pytest.mark.parametrize(("in_memory", "on_disk"), [(0, True), (5, True), (8, False), (100, False)])
def test_bytes_become_a_file(tmp_path: Path, in_memory: int, on_disk: bool) -> None:
    part, path = tmp_path / "1.part", tmp_path / "whole"
    body = PartialFile(part, in_memory)
    for chunk in (b"abc", b"de", b"fgh"):
        body.write(chunk)
    body.close()
    assert (body.size, body.read(), part.exists()) == (8, b"abcdefgh", on_disk)
    body.move_to(path)
    assert path.read_bytes() == b"abcdefgh"
    assert not part.exists()


def test_bytes_on_disk_are_continued_and_cleared(tmp_path: Path) -> None:
    part = tmp_path / "1.part"
    part.write_bytes(b"abc")
    body = PartialFile(part)
    assert body.size == 3
    body.write(b"de")
    body.close()
    body.write(b"f")
    body.close()
    assert part.read_bytes() == b"abcdef"
    body.clear()
    assert (body.size, part.exists()) == (0, False)
    body.write(b"x")
    body.close()
    assert body.read() == b"x"


def test_an_empty_file(tmp_path: Path) -> None:
    for in_memory in (0, 9):
        body = PartialFile(tmp_path / "1.part", in_memory)
        assert body.read() == b""
        body.move_to(tmp_path / "empty")
        assert (tmp_path / "empty").read_bytes() == b""
