"""A few rows of a CSV file of gigabytes, as a pyarrow table: filtered while it is read, in little memory."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.base.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 1 << 18  # bytes that are searched at a time: they fit a core's cache


def select_by_mid(
    path: Path, column: str, mids: Sequence[str], columns: Sequence[str], optional: Sequence[str] = ()
) -> "pa.Table":
    """The rows whose `column` is one of `mids`.

    Parsing every field of 14.6 million rows to keep some thousand is what takes the time. So the file is first
    searched, as bytes, for lines that contain one of the MIDs anywhere; only those are parsed.

    Args:
        path: a CSV file with a header line, without line breaks inside its fields.
        column: the column that holds a MID.
        mids: machine ids such as `/m/0pcr`, which are rare in these files and never quoted or escaped.
        columns: columns to return, which the file must have.
        optional: further columns to return; null where the file does not have them.

    Returns:
        A table of strings, in the order of the file.

    Raises:
        UserError: the file lacks one of `columns`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv as arrow_csv

    _check_columns(path, (column, *columns))
    names = [*columns, *optional]
    convert = arrow_csv.ConvertOptions(
        include_columns=names, column_types=dict.fromkeys(names, pa.string()), include_missing_columns=True
    )
    lines = io.BytesIO(b"".join(_matching_lines(path, mids)))
    rows = arrow_csv.read_csv(lines, convert_options=convert)
    return rows.filter(pc.is_in(rows[column], pa.array(mids, pa.string())))


def select_by_value(path: Path, column: str, values: Sequence[str], columns: Sequence[str]) -> "pa.Table":
    """As `select_by_mid`, for any values, by parsing the whole file; fields may contain line breaks."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv as arrow_csv
    from pyarrow import dataset

    _check_columns(path, (column, *columns))
    schema = pa.schema([(name, pa.string()) for name in columns])
    convert = arrow_csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()))
    file_format = dataset.CsvFileFormat(
        arrow_csv.ParseOptions(newlines_in_values=True), dataset.CsvFragmentScanOptions(convert_options=convert)
    )
    is_selected = pc.field(column).isin(pa.array(values, pa.string()))
    return dataset.dataset(path, schema, file_format).to_table(filter=is_selected)


def _check_columns(path: Path, needed: Sequence[str]) -> None:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        header = next(csv.reader(file), [])
    for name in needed:
        if name not in header:
            has = ", ".join(header) or "an empty header"
            raise UserError(f"{path}: no column {name!r}, only {has}; change the address of the mirror")


def _matching_lines(path: Path, mids: Sequence[str]) -> Iterator[bytes]:
    """The header, and the lines that contain one of the MIDs, in the file's order."""
    pattern = re.compile("|".join(re.escape(mid) for mid in mids).encode())
    with path.open("rb") as file:
        yield file.readline()
        while block := file.read(BLOCK):
            data, end = block + file.readline(), 0
            for match in pattern.finditer(data):
                if match.start() >= end:  # else it is in the line that was returned last
                    end = data.find(b"\n", match.end()) + 1 or len(data)
                    yield data[data.rfind(b"\n", 0, match.start()) + 1 : end]
