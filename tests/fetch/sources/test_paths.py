"""Files as they are found, and text as it is read."""

import re
from pathlib import Path

import pytest

from headstart.base.errors import UserError
from headstart.fetch.sources.paths import find_file, has_split_folders, is_dropping, read_text_file


def test_droppings_by_their_names() -> None:
    for name in (
        "__MACOSX",
        "@eaDir",
        ".DS_Store",
        "._1.jpg",
        "Thumbs.db",
        "Icon\r",
        "$Recycle.Bin",
        ".ipynb_checkpoints",
    ):
        assert is_dropping(name)
    for name in ("1.jpg", "MACOSX", "recycle", "train", "icon", "ea"):
        assert not is_dropping(name)


def test_droppings_have_no_say_in_the_layout(tmp_path: Path) -> None:
    for name in ("train", "Validation_Set", "__MACOSX", "@eaDir"):
        (tmp_path / name).mkdir()
    assert has_split_folders(tmp_path)
    (tmp_path / "cat").mkdir()
    assert not has_split_folders(tmp_path)


def test_a_file_by_the_spellings_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    path = tmp_path / "a/caf\u00e9.png"
    path.touch()
    for name in ("a/caf\u00e9.png", "a/cafe\u0301.png", "a\\caf\u00e9.png"):
        assert find_file(tmp_path, name) == path
    for name in ("a/other.png", "x" * 300, "nul\0.png"):
        assert find_file(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "names: no such file; write it"),
        (b"one\ntwo\n\xe9\n", "names: line 3: not UTF-8 text (byte 0xe9); save it as UTF-8"),
        ("one".encode("utf-16"), "names: UTF-16 text, and UTF-8 is read; save it as UTF-8"),
    ],
)
def test_text_that_cannot_be_read(tmp_path: Path, data: bytes | None, message: str) -> None:
    if data is not None:
        (tmp_path / "names.txt").write_bytes(data)
    with pytest.raises(UserError, match=re.escape(message)):
        read_text_file(tmp_path / "names.txt", "names", "write it")
    with pytest.raises(UserError, match="names: cannot be read"):
        read_text_file(tmp_path, "names", "write it")


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes("\ufeffone\r\ntwo".encode())
    assert read_text_file(tmp_path / "names.txt", "names", "write it") == "one\r\ntwo"
