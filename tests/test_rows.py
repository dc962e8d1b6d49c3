"""Filtering large tables, held against pandas."""

import random
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart import rows

NAMES = ["/m/0pcr", "/m/0pc", "/m/0pcrx", "/m/011q46kg", "/m/011q46kz", "/m/x", "/g/11c5", "/m/01234567"]


def check(path: Path, wanted: list[str], columns: list[str]) -> None:
    found = rows.with_names(path, "LabelName", wanted, columns)
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    expected = table[table["LabelName"].isin(wanted)][columns]
    assert found.to_pandas().fillna("").to_numpy().tolist() == expected.to_numpy().tolist()
    values = rows.with_values(path, "LabelName", wanted, columns)
    assert values.to_pandas().fillna("").to_numpy().tolist() == expected.to_numpy().tolist()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    lines=st.lists(st.tuples(st.integers(0, 9**9), st.sampled_from(NAMES), st.integers(0, 60)), min_size=1),
    wanted=st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True),
    newline=st.booleans(),
)
def test_the_same_rows_as_pandas(
    tmp_path: Path, lines: list[tuple[int, str, int]], wanted: list[str], newline: bool
) -> None:
    text = "ImageID,Source,LabelName,Confidence\n" + "\n".join(f"{i:x},{'s' * n},{name},1" for i, name, n in lines)
    path = tmp_path / "t.csv"
    path.write_text(text + "\n" * newline)
    check(path, wanted, ["ImageID", "LabelName", "Confidence"])


@pytest.mark.parametrize(("block", "window"), [(64, 8192), (200, 16384), (4096, 4096), (1 << 19, 1 << 24)])
def test_lines_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, window: int) -> None:
    monkeypatch.setattr(rows, "BLOCK", block)
    monkeypatch.setattr(rows, "WINDOW", window)
    rng = random.Random(block)
    lines = [f"{i:016x},{'x' * rng.randint(0, 90)},{rng.choice(NAMES)},{rng.random()}" for i in range(500)]
    path = tmp_path / "t.csv"
    path.write_text("ImageID,Source,LabelName,Confidence\n" + "\n".join(lines))
    for wanted in (NAMES[:1], NAMES[2:5], NAMES):
        check(path, wanted, ["LabelName", "ImageID"])


def test_many_names_and_quoted_fields(tmp_path: Path) -> None:
    names = [f"/m/{number:05x}" for number in range(40)]
    path = tmp_path / "t.csv"
    lines = [f'{number},"a, b","{names[number % 40]}",1' for number in range(400)]
    path.write_text("ImageID,Source,LabelName,Confidence\n" + "\n".join(lines))
    check(path, names[::2], ["ImageID", "LabelName"])


def test_two_names_within_eight_bytes(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("ImageID,LabelName\n1,/m/x\n2,/a/m/x/b/\n,/m/x\n")
    check(path, ["/m/x"], ["ImageID", "LabelName"])


def test_none_and_missing_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("ImageID,LabelName\n1,/m/x\n")
    assert rows.with_names(path, "LabelName", ["/m/y"], ["ImageID", "LabelName"]).num_rows == 0
    found = rows.with_names(path, "LabelName", ["/m/x"], ["ImageID", "LabelName", "IsInside"])
    assert found.to_pylist() == [{"ImageID": "1", "LabelName": "/m/x", "IsInside": None}]


def test_line_breaks_inside_fields(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('ImageID,Title,Rotation\n1,"two\nlines, ""quoted""",90.0\n2,b,\n3,c,0.0\n')
    found = rows.with_values(path, "ImageID", ["1", "2"], ["ImageID", "Title", "Rotation"]).to_pylist()
    assert [row["ImageID"] for row in found] == ["1", "2"]
    assert found[0]["Title"] == 'two\nlines, "quoted"'
    assert found[1]["Rotation"] in (None, "")
