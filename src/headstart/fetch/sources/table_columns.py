"""Further columns of a table: the annotator's confidence, and what is kept as it is for slices of the evaluation."""

from collections.abc import Collection, Sequence

from headstart.base.errors import UserError
from headstart.fetch.sources.table_rows import Row


def parse_confidence(table: str, row: Row, column: str | None) -> float | None:
    """The annotator's confidence that a row's label is right; None where the cell is empty or no column is named.

    Raises:
        UserError: it is no number above 0 and at most 1.
    """
    line, cells = row
    cell = cells.get(column, "") if column else ""
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:  # NaN is neither
        raise UserError(
            f"table: {table}: line {line}: {column} {cell!r}: a confidence is a number above 0 and at most 1; correct "
            "it, or leave the cell empty"
        )
    return value


def further_columns(rows: Sequence[Row], known: Collection[str]) -> tuple[tuple[str, str], ...] | None:
    """Columns that headstart does not read, with the cell that all rows of a picture share, where it is not empty."""
    first = rows[0][1]
    kept = {
        name: cell
        for name, cell in first.items()
        if name and name not in known and cell and all(cells.get(name) == cell for _, cells in rows)
    }
    return tuple(kept.items()) or None
