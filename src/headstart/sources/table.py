"""Pictures listed in a CSV file: columns image, label and optionally split, group, and those of boxes."""

import csv
import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from headstart.download import is_remote, local_path
from headstart.errors import UserError, missing_file
from headstart.section import SPLITS, Split
from headstart.sources.wanted import Box, Failed, Local, Remote, Wanted

CORNERS = ("xmin", "ymin", "xmax", "ymax")
Row = tuple[int, dict[str, str]]  # line in the file, and the cells by column


def wanted(
    table: str, root: Path, *, any_label: bool, group_by: str | None, detect: bool = False
) -> Iterator[Wanted | Failed]:
    """Every picture of a table, in the order in which the table first names it.

    `image` is a path relative to the table's own folder, or `package:NAME/path/in/it` for a file of an installed
    Python package, or an http(s) or file:// URL. A picture may have several rows, one for each box:
    xmin, ymin, xmax, ymax in pixels of the upright picture, or of the picture whose width and height the row gives.

    Args:
        table: the CSV file, relative to `root`.
        root: the repository root.
        any_label: the source sets a label for all its pictures, so the table needs none.
        group_by: a column whose value becomes the group (if there is no such column, `sources` reads it as a
            regular expression).
        detect: a row without a label and without a box is a picture of background.

    Raises:
        UserError: the table is missing, empty, lacks a column, or has a wrong value; the line names its row.
    """
    path = root / table
    columns, rows = _read(path, table)
    needed = ["image"] if any_label else ["image", "label"]
    for column in needed:
        if column not in columns:
            raise UserError(f"table: {table}: no column {column!r}, only {', '.join(columns)}; add it or rename one")
    corners = [column for column in CORNERS if column in columns]
    if 0 < len(corners) < 4:
        raise UserError(f"table: {table}: boxes need the columns {', '.join(CORNERS)}; it has only {corners}")
    group = group_by if group_by in columns else "group"
    by_image: dict[str, list[Row]] = {}
    for line, row in rows:
        background = detect and corners and not any(row[column] for column in corners)
        _check(table, line, row, ["image"] if background else needed)
        by_image.setdefault(row["image"], []).append((line, row))
    for image, its_rows in by_image.items():
        yield _picture(table, path.parent, image, its_rows, group, any_label=any_label)


def _read(path: Path, shown: str) -> tuple[list[str], list[Row]]:
    try:
        text = path.read_text(encoding="utf-8-sig")  # a spreadsheet may put a byte order mark first
    except FileNotFoundError:
        raise missing_file(f"table: {shown}", "write it, or run `dvc pull` if DVC tracks it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"table: {shown}: cannot be read as UTF-8 text ({error})") from None
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)  # spreadsheets of many countries write semicolons
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter, restval="", restkey="", skipinitialspace=True)
    columns = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = columns
    rows = []
    for cells in reader:
        rows.append((reader.line_num, {name: cells[name].strip() for name in columns}))
    if not rows:
        raise UserError(f"table: {shown}: no rows in it; it needs a header `image,label` and one row for each picture")
    return columns, rows


def _check(table: str, line: int, row: dict[str, str], needed: list[str]) -> None:
    for column in needed:
        if not row[column]:
            raise UserError(f"table: {table}: line {line}: no {column}; fill in the column {column!r} or drop the row")
    if row.get("split") and row["split"] not in SPLITS:
        raise UserError(f"table: {table}: line {line}: split {row['split']!r} is none of {', '.join(SPLITS)}")


def _picture(table: str, folder: Path, image: str, rows: list[Row], group: str, *, any_label: bool) -> Wanted | Failed:
    """One picture of one or more rows. Rows that repeat each other count once, rows that disagree are a failure."""
    source = f"table:{table}"
    if "://" in image and not is_remote(image) and not image.startswith("file://"):
        return Failed(source, image, "url", "only http, https and file addresses are read")
    lines = ", ".join(str(line) for line, _ in rows)
    boxes = tuple(dict.fromkeys(box for line, row in rows for box in _boxes(table, line, row)))
    labels = {row.get("label", "") for _, row in rows}
    splits = {row.get("split", "") for _, row in rows}
    groups = {row.get(group, "") for _, row in rows}
    told = {"splits": splits, "groups": groups} | ({} if boxes or any_label else {"labels": labels})
    for what, values in told.items():
        if len(values) > 1:
            reason = f"lines {lines} give it the {what} {', '.join(sorted(values))}"
            return Failed(source, image, "contradiction", reason)
    return Wanted(
        location=image,
        source=source,
        content=Remote(image) if is_remote(image) else Local(_locate(table, folder, image)),
        label=(labels.pop() or None) if len(labels) == 1 else None,
        split=_split(splits.pop()),
        group=groups.pop() or None,
        boxes=boxes,
        frame=_frame(table, rows[0]),
        license=rows[0][1].get("license") or None,
        author=rows[0][1].get("author") or None,
        landing_url=rows[0][1].get("landing_url") or None,
    )


def _split(name: str) -> Split | None:
    return next((split for split in SPLITS if split == name), None)


def _boxes(table: str, line: int, row: dict[str, str]) -> list[Box]:
    cells = [row.get(column, "") for column in CORNERS]
    if not any(cells):
        return []  # a picture without a box: background
    try:
        return [_box(row.get("label", ""), [float(cell) for cell in cells])]
    except ValueError:
        shown = ", ".join(f"{column} {cell!r}" for column, cell in zip(CORNERS, cells, strict=True))
        raise UserError(f"table: {table}: line {line}: {shown}: four numbers make a box") from None


def _frame(table: str, row: Row) -> tuple[float, float] | None:
    """The size of the picture that the boxes were drawn on, where the table has the columns width and height."""
    line, cells = row
    width, height = cells.get("width"), cells.get("height")
    if not width or not height:
        return None
    try:
        return float(width), float(height)
    except ValueError:
        raise UserError(f"table: {table}: line {line}: width {width!r}, height {height!r}: not numbers") from None


def _box(label: str, corners: list[float]) -> Box:
    xmin, ymin, xmax, ymax = corners
    return Box(label, xmin, ymin, xmax, ymax)


def _locate(table: str, folder: Path, image: str) -> Path:
    if not image.startswith("package:"):
        return folder / local_path(image)
    package, _, inside = image.removeprefix("package:").partition("/")
    home = _package_folder(package)
    if home is None:
        raise UserError(f"table: {table}: {image}: no package {package!r} here; pip install the one that has it")
    return home / inside


@functools.cache
def _package_folder(package: str) -> Path | None:
    """Where a package is installed. It is found, not imported: its code has no business here."""
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None
