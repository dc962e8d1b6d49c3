"""What a user can mend is one line; our own mistakes keep their traceback."""

import errno
import os
from pathlib import Path

import pytest

from headstart.base.errors import UserError
from headstart.base.files import atomic_path, crc32_file, write_text
from headstart.base.one_line import one_line


def failed(number: int, path: object = None) -> OSError:
    return OSError(number, os.strerror(number), None if path is None else str(path))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("a: b; c"), "a: b; c"),
        (failed(errno.ENOSPC, ".cache/x"), ".cache/x: no room left on this disk; make some, and the same command goes"),
        (failed(errno.EDQUOT, "x"), "x: your quota on this disk is used up; make room, and the same command goes on"),
        (failed(errno.EFBIG, "x"), "x: a file may not become that large here; allow it (`ulimit -f unlimited`), and"),
        (failed(errno.EROFS, "x"), "x: a read-only disk; mount it writable or work in another folder, and the same"),
        (failed(errno.EIO, "x"), "x: the disk fails here (input/output error); check it, and the same command goes on"),
        (failed(errno.ENAMETOOLONG, "x"), "x: a name too long for this disk; move the repository to a folder with a"),
        (failed(errno.EMFILE, "x"), "x: too many open files; allow more (`ulimit -n 4096`), and the same command goes"),
        (failed(errno.EACCES, "a/b"), "a/b: no permission; look at `ls -ld a` and give it (chmod u+rwX, chown), and"),
        (failed(errno.EPERM, "a/b"), "a/b: no permission; look at `ls -ld a` and give it (chmod u+rwX, chown), and"),
        (failed(errno.ENOENT, "stages/a.json"), "stages/a.json: no such file; `dvc repro` runs the stage that writes"),
    ],
)
def test_the_line(error: Exception, line: str) -> None:
    said = one_line(error)
    assert said is not None
    assert said.startswith(line)
    assert "\n" not in said


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError(),
        failed(errno.ENOENT, "/nowhere"),
        failed(errno.ENOENT),
        failed(errno.EACCES),
        failed(errno.ECONNREFUSED, "x"),
        OSError("no number"),
        ExceptionGroup("", [failed(errno.ENOSPC, "x"), ZeroDivisionError()]),
    ],
    ids=repr,
)
def test_what_is_ours_has_none(error: Exception) -> None:
    assert one_line(error) is None


def test_a_path_in_the_current_folder_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert one_line(UserError(f"{tmp_path}/stages/a.json: no such file")) == "stages/a.json: no such file"
    assert one_line(UserError(f"{tmp_path}2/a.json: no such file")) == f"{tmp_path}2/a.json: no such file"


def test_of_many_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    group = ExceptionGroup("", [failed(errno.ENOSPC, tmp_path / "x"), failed(errno.ENOSPC, tmp_path / "y")])
    assert str(one_line(group)).startswith("x: no room left"), "named from the current folder"
    assert str(one_line(failed(errno.ENOSPC))).startswith(f"{tmp_path}: no room left"), "a write names no file"


def test_a_file_where_a_folder_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(NotADirectoryError) as below:
        write_text(tmp_path / "file/deep/x", "")
    assert str(one_line(below.value)).startswith("file: a file lies where a folder is needed; move it away")
    with pytest.raises(IsADirectoryError) as onto:
        write_text(tmp_path / "folder", "")
    assert str(one_line(onto.value)).startswith("folder: a folder lies where a file is needed; move it away")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


class LibraryError(Exception):
    """As a library in Rust raises it."""


@pytest.mark.parametrize(
    "error",
    [
        failed(errno.ENOSPC),
        LibraryError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=repr,
)
def test_a_failed_write_names_its_file(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"before")

    def write() -> None:
        with atomic_path(path) as part:
            part.write_bytes(b"half")
            raise error

    with pytest.raises(OSError, match="No space left") as found:
        write()
    assert (found.value.errno, found.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_within_a_write_stay_what_they_are(tmp_path: Path) -> None:
    def write(error: Exception) -> None:
        with atomic_path(tmp_path / "x"):
            raise error

    with pytest.raises(FileNotFoundError) as found:
        write(failed(errno.ENOENT, "input"))
    assert found.value.filename == "input"
    with pytest.raises(LibraryError):
        write(LibraryError("os error"))


def test_crc32_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"123456789")
    assert crc32_file(path) == 0xCBF43926  # the check value of CRC-32/ISO-HDLC
    path.write_bytes(b"123456789" * 200_000)
    whole = crc32_file(path)
    path.write_bytes(b"123456789" * 199_999 + b"123456788")
    assert crc32_file(path) != whole
