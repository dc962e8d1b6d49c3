"""Source `table`: pictures listed in a CSV file with columns image, label and optionally split, group, and boxes."""

import csv
import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from headstart.base.errors import UserError
from headstart.base.manifest import SPLITS, Split
from headstart.fetch.http.addresses import is_remote, local_path
from headstart.fetch.sources.paths import read_text_file
from headstart.fetch.sources.records import LocalFile, Rejection, RemoteFile, SourceBox, SourceImage

CORNER_COLUMNS = ("xmin", "ymin", "xmax", "ymax")
Row = tuple[int, dict[str, str]]  # line in the file, and the cells by column


def list_images(
    table: str, root: Path, *, label_given: bool, group_by: str | None, boxes: bool = False
) -> Iterator[SourceImage | Rejection]:
    """Every picture of a table, in the order in which the table first names it.

    `image` is a path relative to the table's own folder, or `package:NAME/path/in/it` for a file of an installed
    Python package, or an http(s) or file:// URL. A picture may have several rows, one for each box:
    xmin, ymin, xmax, ymax in pixels of the upright picture, or of the picture whose width and height the row gives.

    Args:
        table: the CSV file, relative to `root`.
        root: the repository root.
        label_given: the source sets a label for all its pictures, so the table needs none.
        group_by: a column whose value becomes the group (if there is no such column, `collect` reads it as a
            regular expression).
        boxes: the task learns from boxes: a row without a label and without a box is a picture of background.

    Raises:
        UserError: the table is missing, empty, lacks a column, or has a wrong value; the line names its row.
    """
    path = root / table
    columns, rows = _read_rows(path, table)
    needed = ["image"] if label_given else ["image", "label"]
    for column in needed:
        if column not in columns:
            raise UserError(f"table: {table}: no column {column!r}, only {', '.join(columns)}; add it or rename one")
    corners = [column for column in CORNER_COLUMNS if column in columns]
    if 0 < len(corners) < 4:
        raise UserError(f"table: {table}: boxes need the columns {', '.join(CORNER_COLUMNS)}; it has only {corners}")
    group = group_by if group_by in columns else "group"
    rows_by_image: dict[str, list[Row]] = {}
    for line, row in rows:
        is_background = boxes and corners and not any(row[column] for column in corners)
        _check_row(table, line, row, ["image"] if is_background else needed)
        rows_by_image.setdefault(row["image"], []).append((line, row))
    for image, image_rows in rows_by_image.items():
        yield _to_source_image(table, path.parent, image, image_rows, group, label_given=label_given)


def _read_rows(path: Path, display_path: str) -> tuple[list[str], list[Row]]:
    """The table's columns, and its rows with surrounding spaces removed."""
    where = f"table: {display_path}"
    text = read_text_file(path, where, "write it, or run `dvc pull data` if DVC tracks it")
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)  # spreadsheets of many countries write semicolons
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter, restval="", restkey="", skipinitialspace=True)
    columns = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = columns
    rows = []
    for cells in reader:
        rows.append((reader.line_num, {name: cells[name].strip() for name in columns}))
    if not rows:
        raise UserError(f"{where}: no rows in it; it needs a header `image,label` and one row for each picture")
    return columns, rows


def _check_row(table: str, line: int, row: dict[str, str], needed: list[str]) -> None:
    for column in needed:
        if not row[column]:
            raise UserError(f"table: {table}: line {line}: no {column}; fill in the column {column!r} or drop the row")
    if row.get("split") and row["split"] not in SPLITS:
        raise UserError(f"table: {table}: line {line}: split {row['split']!r} is none of {', '.join(SPLITS)}")


def _to_source_image(
    table: str, folder: Path, image: str, rows: list[Row], group: str, *, label_given: bool
) -> SourceImage | Rejection:
    """One picture of one or more rows. Rows that repeat each other count once; rows that disagree are rejected."""
    source = f"table:{table}"
    if "://" in image and not is_remote(image) and not image.startswith("file://"):
        return Rejection(source, image, "url", "only http, https and file addresses are read")
    lines = ", ".join(str(line) for line, _ in rows)
    boxes = tuple(dict.fromkeys(box for line, row in rows for box in _parse_boxes(table, line, row)))
    labels = {row.get("label", "") for _, row in rows}
    splits = {row.get("split", "") for _, row in rows}
    groups = {row.get(group, "") for _, row in rows}
    must_agree = {"splits": splits, "groups": groups} | ({} if boxes or label_given else {"labels": labels})
    for name, values in must_agree.items():
        if len(values) > 1:
            reason = f"lines {lines} give it the {name} {', '.join(sorted(values))}"
            return Rejection(source, image, "contradiction", reason)
    return SourceImage(
        location=image,
        source=source,
        content=RemoteFile(image) if is_remote(image) else LocalFile(_image_path(table, folder, image)),
        label=(labels.pop() or None) if len(labels) == 1 else None,
        split=_parse_split(splits.pop()),
        group=groups.pop() or None,
        boxes=boxes,
        frame=_annotated_size(table, rows[0]),
        license=rows[0][1].get("license") or None,
        author=rows[0][1].get("author") or None,
        landing_url=rows[0][1].get("landing_url") or None,
    )


def _parse_split(name: str) -> Split | None:
    return next((split for split in SPLITS if split == name), None)


def _parse_boxes(table: str, line: int, row: dict[str, str]) -> list[SourceBox]:
    """The box of a row in a list; an empty list for background."""
    cells = [row.get(column, "") for column in CORNER_COLUMNS]
    if not any(cells):
        return []
    try:
        xmin, ymin, xmax, ymax = (float(cell) for cell in cells)
    except ValueError:
        values = ", ".join(f"{column} {cell!r}" for column, cell in zip(CORNER_COLUMNS, cells, strict=True))
        raise UserError(f"table: {table}: line {line}: {values}: four numbers make a box") from None
    return [SourceBox(row.get("label", ""), xmin, ymin, xmax, ymax)]


def _annotated_size(table: str, row: Row) -> tuple[float, float] | None:
    """Width and height of the picture that the boxes were drawn on, where the table has these columns."""
    line, cells = row
    width, height = cells.get("width"), cells.get("height")
    if not width or not height:
        return None
    try:
        return float(width), float(height)
    except ValueError:
        raise UserError(f"table: {table}: line {line}: width {width!r}, height {height!r}: not numbers") from None


def _image_path(table: str, folder: Path, image: str) -> Path:
    if not image.startswith("package:"):
        return folder / local_path(image)
    package, _, inside = image.removeprefix("package:").partition("/")
    package_folder = _find_package_folder(package)
    if package_folder is None:
        raise UserError(f"table: {table}: {image}: no package {package!r} here; pip install the one that has it")
    return package_folder / inside


@functools.cache
def _find_package_folder(package: str) -> Path | None:
    """Where a package is installed. It is found, not imported: none of its code has to run."""
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    folders = spec.submodule_search_locations if spec else None
    return Path(next(iter(folders))) if folders else None
