"""The words of error lines: the first line of an exception, and the names that are similar to a misspelt one."""

from pathlib import Path

import pytest

from headstart.base.errors import did_you_mean, first_line, missing_file, root_above


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n one \r\ntwo"), "one"),
        (RuntimeError(), "RuntimeError"),
        (OSError(28, "No space left"), "[Errno 28] No space left"),
    ],
)
def test_first_line(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_similar_names_or_another_fix() -> None:
    known = ["Goat", "Boat", "French bulldog"]
    assert did_you_mean("Gaot", known, "none") == "did you mean 'Goat'?"
    assert did_you_mean("Goaat", known, "none", count=2) == "did you mean 'Goat' or 'Boat'?"
    assert did_you_mean("zzz", known, "known are Goat") == "known are Goat"
    assert did_you_mean("FRENCH BULDOG", known, "none") == "none"
    assert did_you_mean("FRENCH BULDOG", known, "none", normalize=str.casefold) == "did you mean 'French bulldog'?"
    assert did_you_mean("Got", known, "none", cutoff=0.99) == "none"


def test_in_a_subfolder_the_fix_is_the_way_to_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert root_above() is None
    assert str(missing_file("a.csv", "write it")) == "a.csv: no such file; write it"
    (tmp_path / "data/pets").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "data/pets")
    assert str(missing_file("a.csv", "write it")) == "a.csv: no such file; the project is in ../..: cd ../.."
