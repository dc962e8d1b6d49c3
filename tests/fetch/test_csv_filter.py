"""Rows selected from large tables, compared with pandas."""

import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart.base.errors import UserError
from headstart.fetch import csv_filter

MIDS = ["/m/0pcr", "/m/0pc", "/m/0pcrx", "/m/011q46kg", "/m/011q46kz", "/m/x", "/g/11c5", "/m/01234567"]


def check(path: Path, selected: list[str], columns: list[str]) -> None:
    found = csv_filter.select_by_mid(path, "LabelName", selected, columns)
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    expected = table[table["LabelName"].isin(selected)][columns]
    assert found.to_pandas().fillna("").to_numpy().tolist() == expected.to_numpy().tolist()
    values = csv_filter.select_by_value(path, "LabelName", selected, columns)
    assert values.to_pandas().fillna("").to_numpy().tolist() == expected.to_numpy().tolist()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    lines=st.lists(st.tuples(st.integers(0, 9**9), st.sampled_from(MIDS), st.integers(0, 60)), min_size=1),
    selected=st.lists(st.sampled_from(MIDS), min_size=1, max_size=4, unique=True),
    newline=st.booleans(),
)
def test_the_same_rows_as_pandas(
    tmp_path: Path, lines: list[tuple[int, str, int]], selected: list[str], newline: bool
) -> None:
    text = "ImageID,Source,LabelName,Confidence\n" + "\n".join(f"{i:x},{'s' * n},{name},1" for i, name, n in lines)
    path = tmp_path / "t.csv"
    path.write_text(text + "\n" * newline)
    check(path, selected, ["ImageID", "LabelName", "Confidence"])


@pytest.mark.parametrize("block", [1, 64, 200, 4096, 1 << 19])
def test_lines_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(csv_filter, "BLOCK", block)
    rng = random.Random(block)
    lines = [f"{i:016x},{'x' * rng.randint(0, 90)},{rng.choice(MIDS)},{rng.random()}" for i in range(500)]
    path = tmp_path / "t.csv"
    path.write_text("ImageID,Source,LabelName,Confidence\n" + "\n".join(lines))
    for selected in (MIDS[:1], MIDS[2:5], MIDS):
        check(path, selected, ["LabelName", "ImageID"])


def test_many_mids_and_quoted_fields(tmp_path: Path) -> None:
    names = [f"/m/{number:05x}" for number in range(40)]
    path = tmp_path / "t.csv"
    lines = [f'{number},"a, b","{names[number % 40]}",1' for number in range(400)]
    path.write_text("ImageID,Source,LabelName,Confidence\n" + "\n".join(lines))
    check(path, names[::2], ["ImageID", "LabelName"])


def test_a_mid_inside_longer_text(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("ImageID,LabelName\n1,/m/x\n2,/a/m/x/b/\n,/m/x\n")
    check(path, ["/m/x"], ["ImageID", "LabelName"])


def test_no_rows_and_missing_optional_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("ImageID,LabelName\n1,/m/x\n")
    assert csv_filter.select_by_mid(path, "LabelName", ["/m/y"], ["ImageID", "LabelName"]).num_rows == 0
    found = csv_filter.select_by_mid(path, "LabelName", ["/m/x"], ["ImageID", "LabelName"], optional=["IsInside"])
    assert found.to_pylist() == [{"ImageID": "1", "LabelName": "/m/x", "IsInside": None}]


@pytest.mark.parametrize("select", [csv_filter.select_by_mid, csv_filter.select_by_value])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ImageID,Source\n1,/m/x\n", "t.csv: no column 'LabelName', only ImageID, Source; change the address"),
        ("LabelName\n/m/x\n", "t.csv: no column 'ImageID', only LabelName; change the address"),
        ("", "t.csv: no column 'LabelName', only an empty header; change the address"),
    ],
)
def test_a_missing_column_is_an_error(tmp_path: Path, select: Any, text: str, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        select(path, "LabelName", ["/m/x"], ["ImageID", "LabelName"])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_line_breaks_inside_fields(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('ImageID,Title,Rotation\n1,"two\nlines, ""quoted""",90.0\n2,b,\n3,c,0.0\n')
    found = csv_filter.select_by_value(path, "ImageID", ["1", "2"], ["ImageID", "Title", "Rotation"]).to_pylist()
    assert [row["ImageID"] for row in found] == ["1", "2"]
    assert found[0]["Title"] == 'two\nlines, "quoted"'
    assert found[1]["Rotation"] in (None, "")


def test_a_broken_line_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("ImageID,Rotation\n1,0\n2\n")
    with pytest.raises(ValueError, match="Row #3: Expected 2 columns, got 1: 2"):
        csv_filter.select_by_value(path, "ImageID", ["1"], ["ImageID", "Rotation"])
