"""Files are written atomically, read back as they were, and leave nothing behind after an error."""

import os
import re
from pathlib import Path

import pytest

from headstart.base.errors import UserError
from headstart.base.files import (
    atomic_path,
    csv_text,
    json_rows,
    read_csv,
    read_json,
    remove_stale_files,
    write_bytes,
    write_json,
    write_text,
)


def test_a_file_is_replaced_at_the_end_alone(tmp_path: Path) -> None:
    path = tmp_path / "new/model.bin"
    write_bytes(path, b"old")
    with atomic_path(path) as part:
        part.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert part.parent == path.parent, "else the rename might cross file systems"
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_after_an_error_the_old_file_is_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    write_bytes(path, b"old")

    def fail() -> None:
        with atomic_path(path) as part:
            part.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_and_csv_come_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, None], "a": "é"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8").startswith('{\n  "b"'), "in the order given"
    assert read_json(tmp_path / "a.json") == {"b": [1, None], "a": "é"}
    rows: list[dict[str, object]] = [{"one": 1, "two": 'a "b", c'}, {"one": 2, "two": "é"}]
    write_text(tmp_path / "rows.json", json_rows(rows))
    assert read_json(tmp_path / "rows.json") == rows
    assert len((tmp_path / "rows.json").read_text().splitlines()) == 4
    text = csv_text(("one", "two"), [*(row.values() for row in rows), (None, 0.5)])
    assert "\r" not in text
    write_text(tmp_path / "rows.csv", text)
    assert read_csv(tmp_path / "rows.csv") == [
        {"one": "1", "two": 'a "b", c'},
        {"one": "2", "two": "é"},
        {"one": "", "two": "0.5"},
    ]


def test_stale_files_are_those_older_than_a_day(tmp_path: Path) -> None:
    for name in ("new.part", "old.part", "old.json"):
        (tmp_path / name).write_bytes(b"")
    for name in ("old.part", "old.json"):
        os.utime(tmp_path / name, (1000, 1000))
    remove_stale_files(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.part", "old.json"]
    remove_stale_files(tmp_path / "missing")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "line 1: Expecting value"), (b'{\n"a": "b', "line 2: Unterminated string"), (b'"\xff"', "not UTF-8")],
)
def test_a_damaged_json_file_is_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(f"{path}: damaged ({reason}")) as caught:
        read_json(path)
    assert str(caught.value).endswith("; run `dvc repro` to make it anew")
