"""Rows of a CSV file that people edit, read strictly: what would shift or swallow cells is an error with its line."""

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from headstart.base.errors import UserError, missing_file
from headstart.fetch.sources.paths import UTF16_MARKS, decode_text

DELIMITERS = ",;\t|"  # spreadsheets of many countries write semicolons
Row = tuple[int, dict[str, str]]  # line in the file where it begins, and the cells by column


class _Cells(NamedTuple):
    line: int  # where the row begins
    cells: list[str]
    is_long: bool  # it goes on over several lines


_NO_CELLS = _Cells(0, [], is_long=False)


def read_columns(path: Path, where: str) -> list[str]:
    """The names in a table's header, in their order; "" for a column without a name.

    Raises:
        UserError: the file is missing, no text, or its header is not well-formed.
    """
    _, rows = _parse(_read_text(path, where), where)
    header = next(rows, _NO_CELLS).cells
    return [name.strip() for name in header]


def read_rows(path: Path, where: str, used: Collection[str]) -> tuple[list[str], list[Row]]:
    """The table's columns, and its rows with surrounding spaces removed.

    Read as they are meant: a byte order mark, UTF-16, the delimiters `,` `;` `|` and tab, `sep=;` on the first line,
    an index column without a name, empty cells beyond the header, empty rows, and line breaks within quoted cells of
    columns that are not used.

    Args:
        path: the file.
        where: how an error line begins: the key of params and the path as written there.
        used: the columns whose cells matter; a line break in one of them is an error.

    Raises:
        UserError: the file is missing or no text, has no rows, two columns of one name, a row with more or fewer
            cells than the header, or a quote that is not closed. The line of the file is named.
    """
    delimiter, parsed = _parse(_read_text(path, where), where)
    header = next(parsed, _NO_CELLS).cells
    columns = [name.strip() for name in header]
    repeated = [name for name, count in Counter(columns).items() if count > 1 and name]
    if repeated:
        raise UserError(f"{where}: two columns {repeated[0]!r} in the header; rename one, or take it out")
    rows = [row for row in parsed if any(map(str.strip, row.cells))]
    if not rows:
        raise UserError(f"{where}: no rows in it; it needs a header `image,label` and one row for each picture")
    rows = _without_index(rows, len(columns))
    has_nameless = "" in columns[1:]
    for row in rows:
        if len(row.cells) != len(columns) or has_nameless or row.is_long:
            _check_cells(f"{where}: line {row.line}", row.cells, columns, used, delimiter)
    return columns, [(row.line, dict(zip(columns, map(str.strip, row.cells), strict=False))) for row in rows]


def _read_text(path: Path, where: str) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise missing_file(where, "write it, or run `dvc pull data` if DVC tracks it") from None
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror or error}); name a CSV file") from None
    if data.startswith(b"PK\x03\x04"):
        raise UserError(f"{where}: a spreadsheet or zip file, not text; export it as CSV (UTF-8)")
    if data.startswith(UTF16_MARKS):
        try:
            text = data.decode("utf-16")
        except UnicodeDecodeError:
            raise UserError(f"{where}: damaged UTF-16 text; save it as UTF-8") from None
    else:
        text = decode_text(data, where)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{where}: line {line}: a NUL character, which no text has; export the table again, as UTF-8")
    return text


def _parse(text: str, where: str) -> tuple[str, Iterator[_Cells]]:
    """The delimiter, and an iterator of rows: the line where each begins, and its cells. Blank lines are left out."""
    # newline="": lines end at \n, \r and \r\n alone; str.splitlines would cut cells at U+2028 and U+0085 as well.
    lines = io.StringIO(text, newline="")
    first, skipped = next((line for line in lines if line.strip()), ""), 0
    hint = re.fullmatch(r"sep=(.)\s*", first, re.IGNORECASE)  # for Excel
    lines.seek(0)
    if hint:
        skipped = next(number for number, line in enumerate(lines, start=1) if line.strip())
    delimiter = hint.group(1) if hint else max(DELIMITERS, key=lambda candidate: _count_cells(first, candidate))
    return delimiter, _parse_rows(lines, delimiter, skipped, where)


def _count_cells(header: str, delimiter: str) -> int:
    try:
        return len(next(csv.reader([header], delimiter=delimiter, skipinitialspace=True, strict=True), []))
    except csv.Error:
        return 0


def _parse_rows(lines: Iterator[str], delimiter: str, skipped: int, where: str) -> Iterator[_Cells]:
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=delimiter != "\t", strict=True)
    while True:
        first = skipped + reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{where}: line {first}: {_explain(error, skipped + reader.line_num - first)}") from None
        if cells is None:
            return
        if cells:
            yield _Cells(first, cells, is_long=skipped + reader.line_num > first)


def _explain(error: csv.Error, lines: int) -> str:
    if "field limit" in str(error):
        limit = f"{csv.field_size_limit():,}"
        return f"a cell of over {limit} characters begins here; close its quote, or take its column out"
    if lines > 0 or "end of data" in str(error):
        return "a cell begins with a quote that is not closed on this line; close it, or write a quote in it twice"
    return "text after the closing quote of a cell; write a quote within a quoted cell twice"


def _without_index(rows: list[_Cells], columns: int) -> list[_Cells]:
    """The rows without a running number before them that the header does not name (R and some tools write it)."""
    if any(len(row.cells) != columns + 1 for row in rows) or not any(row.cells[-1].strip() for row in rows):
        return rows
    numbers = [row.cells[0].strip() for row in rows]
    if any(numbers == [str(start + index) for index in range(len(rows))] for start in (0, 1)):
        return [row._replace(cells=row.cells[1:]) for row in rows]
    return rows


def _check_cells(
    where: str, cells: Sequence[str], columns: Sequence[str], used: Collection[str], delimiter: str
) -> None:
    """Raise UserError where cells may have been cut, joined or shifted."""
    missing = [name for name in columns[len(cells) :] if name]
    if missing:  # a line break without quotes leaves two such rows
        raise UserError(
            f"{where}: no {missing[0]} in a row of {len(cells)} cells, and the header names {len(columns)}; write "
            "empty cells as well, and no line break within a row"
        )
    beyond = [cell for cell in cells[len(columns) :] if cell.strip()]
    # The first column without a name is an index; another one takes the rest of a cell that was cut at a delimiter.
    beyond += [cell for name, cell in list(zip(columns, cells, strict=False))[1:] if not name and cell.strip()]
    if beyond:
        raise UserError(
            f"{where}: more cells than the header names ({beyond[0].strip()[:40]!r} is beyond them); put quotes "
            f"around a cell that holds a {'tab' if delimiter == chr(9) else delimiter!r}"
        )
    for name, cell in zip(columns, cells, strict=False):
        if "\n" not in cell and "\r" not in cell:
            continue
        is_row = any(line.count(delimiter) >= len(columns) - 1 for line in re.split(r"\r\n|\r|\n", cell)[1:])
        if name in used or is_row:  # rows below a quote that was never meant to open a cell
            raise UserError(
                f"{where}: the cell of {name!r} goes on over several lines; close its quote on this line, or take the "
                "line breaks out"
            )
