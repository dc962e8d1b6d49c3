"""Source `table`: pictures listed in a CSV file with columns image, label, optionally split, group, boxes, others."""

import functools
import importlib.util
import math
import posixpath
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from headstart.base.errors import UserError, list_some
from headstart.base.manifest import SPLITS
from headstart.fetch.http.addresses import is_remote, local_path
from headstart.fetch.sources import table_columns, table_rows
from headstart.fetch.sources.box_checks import are_fractions, check_units, order_corners
from headstart.fetch.sources.labels import normalize_label
from headstart.fetch.sources.paths import SPLIT_OF_FOLDER, find_file
from headstart.fetch.sources.records import LocalFile, Rejection, RemoteFile, SourceBox, SourceImage
from headstart.fetch.sources.table_rows import Row

CORNER_COLUMNS = ("xmin", "ymin", "xmax", "ymax")
SIZE_COLUMNS = ("width", "height")
CREDIT_COLUMNS = ("license", "author", "landing_url")
NO_GROUPS = "none"  # `group_by: none`
COLUMNS = ("image", "label", "split", "group", *CORNER_COLUMNS, *SIZE_COLUMNS, *CREDIT_COLUMNS)


def list_images(
    table: str,
    root: Path,
    *,
    label_given: bool,
    group_by: str | None,
    confidence: str | None = None,
    boxes: bool = False,
) -> Iterator[SourceImage | Rejection]:
    """Every picture of a table, in the order in which the table first names it.

    `image` is a path relative to the table's own folder, or `package:NAME/path/in/it` for a file of an installed
    Python package, or an http(s) or file:// URL. A picture may have several rows, one for each box:
    xmin, ymin, xmax, ymax in pixels of the upright picture, or of the picture whose width and height the row gives.
    Where all corners of the table lie within 0 and 1 they are fractions of the picture.

    Args:
        table: the CSV file, relative to `root`.
        root: the repository root.
        label_given: the source sets a label for all its pictures, so the table needs none.
        group_by: a column whose value becomes the group; None: the column `group`, if there is one; NO_GROUPS: none
            (if there is no such column, `collect` reads it as a regular expression).
        confidence: a column with the annotator's confidence that the label is right; an empty cell: not stated.
        boxes: the task learns from boxes: a row without a label and without a box is a picture of background.

    Raises:
        UserError: the table is missing, empty, lacks a column, or has a wrong value; the line names its row.
    """
    where = f"table: {table}"
    columns, rows = table_rows.read_rows(root / table, where, {*COLUMNS, group_by or "group", confidence or "image"})
    needed = ["image"] if label_given else ["image", "label"]
    _check_columns(where, columns, [*needed, confidence] if confidence else needed)
    group = group_by if group_by in columns or group_by == NO_GROUPS else "group"
    rows_by_image: dict[str, list[Row]] = {}
    for line, row in rows:
        is_background = boxes and "xmin" in columns and not row.get("label") and not _has_corner(row)
        _check_row(f"{where}: line {line}", row, ["image"] if is_background else needed)
        rows_by_image.setdefault(_one_spelling(row["image"]), []).append((line, row))
    items = [
        _to_source_image(
            table, (root / table).parent, image_rows, group or "", confidence, label_given=label_given, boxes=boxes
        )
        for image_rows in rows_by_image.values()
    ]
    yield from _to_frames(items, f"table:{table}")


def read_columns(table: str, root: Path) -> list[str]:
    """The names in a table's header.

    Raises:
        UserError: the table is missing or no CSV file.
    """
    return table_rows.read_columns(root / table, f"table: {table}")


def _check_columns(where: str, columns: Sequence[str], needed: Sequence[str]) -> None:
    for column in needed:
        if column not in columns:
            has = ", ".join(name or "one without a name" for name in columns)
            fix = "add it or rename one" if len(columns) > 1 else "separate cells by commas, semicolons or tabs"
            raise UserError(f"{where}: no column {column!r}, only {has}; {fix}")
    corners = [column for column in CORNER_COLUMNS if column in columns]
    if 0 < len(corners) < 4:
        sized = [name for name in (*SIZE_COLUMNS, "w", "h") if name in columns]
        fix = f"; {', '.join(sized)} do not stand for corners: write xmax = xmin + width, ymax = ymin + height"
        raise UserError(
            f"{where}: boxes need the columns {', '.join(CORNER_COLUMNS)}; it has only {', '.join(corners)}"
            f"{fix if sized else ''}"
        )


def _check_row(where: str, row: dict[str, str], needed: Sequence[str]) -> None:
    for column in needed:
        if not row[column]:
            raise UserError(f"{where}: no {column}; fill in the column {column!r} or drop the row")
    if row.get("split") and row["split"].lower() not in SPLIT_OF_FOLDER:
        raise UserError(f"{where}: split {row['split']!r} is none of {', '.join(SPLITS)}")


def _one_spelling(image: str) -> str:
    """The same text for `1.jpg`, `./1.jpg` and `a/../1.jpg`, so that the rows of one picture are found."""
    return image if ":" in image else posixpath.normpath(image.replace("\\", "/"))


def _to_source_image(
    table: str, folder: Path, rows: list[Row], group: str, confidence: str | None, *, label_given: bool, boxes: bool
) -> SourceImage | Rejection:
    """One picture of one or more rows. Rows that repeat each other count once; rows that disagree are rejected."""
    source, image = f"table:{table}", rows[0][1]["image"]
    if "://" in image and not is_remote(image) and not image.startswith("file://"):
        return Rejection(source, image, "url", "only http, https and file addresses are read")
    found = tuple(dict.fromkeys(box for line, row in rows for box in _parse_boxes(table, line, row)))
    labels = {normalize_label(row.get("label", "")) for _, row in rows}
    splits = {SPLIT_OF_FOLDER.get(row.get("split", "").lower()) for _, row in rows}
    groups = {row.get(group, "") for _, row in rows}
    frames = {_annotated_size(table, row) for row in rows} if found else {None}
    sure = {table_columns.parse_confidence(table, row, confidence) for row in rows}
    once: dict[str, Collection[object]] = {"splits": splits, "groups": groups, "sizes": frames, "confidences": sure}
    reason = _disagreement(rows, once, labels, found, label_given)
    if reason is None and boxes:
        reason = _missing_box(rows)
    if reason is not None:
        return Rejection(source, image, "contradiction", reason)
    return SourceImage(
        location=image,
        source=source,
        content=RemoteFile(image) if is_remote(image) else LocalFile(_image_path(table, folder, image)),
        label=(labels.pop() or None) if len(labels) == 1 else None,
        split=splits.pop(),
        group=groups.pop() or None,
        boxes=found,
        frame=frames.pop(),
        license=rows[0][1].get("license") or None,
        author=rows[0][1].get("author") or None,
        landing_url=rows[0][1].get("landing_url") or None,
        confidence=sure.pop(),
        columns=table_columns.further_columns(rows, COLUMNS),
    )


def _disagreement(
    rows: list[Row],
    values: Mapping[str, Collection[object]],
    labels: Collection[str],
    boxes: Collection[SourceBox],
    label_given: bool,
) -> str | None:
    """Why the rows of one picture cannot all be right: what has to be one for all of them and is not."""
    must_agree = {**values} | ({} if boxes or label_given else {"labels": labels})
    for name, found in must_agree.items():
        if len(found) > 1:
            given = ", ".join(sorted(str(value or "none") for value in found))
            return f"{_lines(rows)} give it the {name} {given}"
    return None


def _missing_box(rows: list[Row]) -> str | None:
    """For a detector: a row without corners, of a picture that has boxes in other rows."""
    without = [(line, row) for line, row in rows if not _has_corner(row)]
    if not without or len(without) == len(rows):
        return None
    is_named = any(row.get("label") for _, row in without)
    what = "a label and no corners" if is_named else "neither label nor corners, as background has"
    return f"{_lines(without)} with {what}, and other lines give it boxes"


def _lines(rows: Sequence[Row]) -> str:
    return f"line{'s' if len(rows) > 1 else ''} {list_some([str(line) for line, _ in rows], 10)}"


def _has_corner(row: dict[str, str]) -> bool:
    return any(row.get(column) for column in CORNER_COLUMNS)


def _parse_boxes(table: str, line: int, row: dict[str, str]) -> list[SourceBox]:
    """The box of a row in a list; an empty list for background."""
    if not _has_corner(row):
        return []
    cells = [row.get(column, "") for column in CORNER_COLUMNS]
    try:
        xmin, ymin, xmax, ymax = (float(cell) for cell in cells)
    except ValueError:
        values = ", ".join(f"{column} {cell!r}" for column, cell in zip(CORNER_COLUMNS, cells, strict=True))
        raise UserError(f"table: {table}: line {line}: {values}: four numbers make a box") from None
    label = normalize_label(row.get("label", ""))
    return [order_corners(SourceBox(label, xmin, ymin, xmax, ymax, where=f"line {line}"))]


def _annotated_size(table: str, row: Row) -> tuple[float, float] | None:
    """Width and height of the picture that the boxes were drawn on, where the table has these columns."""
    line, cells = row
    width, height = (cells.get(column, "") for column in SIZE_COLUMNS)
    if not width and not height:
        return None
    try:
        size = float(width), float(height)
    except ValueError:
        raise UserError(f"table: {table}: line {line}: width {width!r}, height {height!r}: not numbers") from None
    if not all(math.isfinite(side) and side > 0 for side in size):
        raise UserError(f"table: {table}: line {line}: width {width!r}, height {height!r}: no size of a picture")
    return size


def _to_frames(items: list[SourceImage | Rejection], where: str) -> list[SourceImage | Rejection]:
    """The same pictures, with `frame` (1, 1) where all corners of the table are fractions.

    Where width and height are known, fractions are scaled to them: these decide about EXIF. In a table of pixels, a
    picture with a box within one pixel is rejected.
    """
    boxed = [item for item in items if isinstance(item, SourceImage) and item.boxes]
    has_sizes = all(item.frame is not None and min(item.frame) > 1 for item in boxed)
    if has_sizes or not are_fractions(box for item in boxed for box in item.boxes):
        return check_units(items, where)
    print(f"fetch: {where}: all corners lie within 0 and 1: read as fractions of the picture", file=sys.stderr)
    return [replace(item, frame=(1.0, 1.0)) if isinstance(item, SourceImage) and item.boxes else item for item in items]


def _image_path(table: str, folder: Path, image: str) -> Path:
    if not image.startswith("package:"):
        return find_file(folder, str(local_path(image)))
    package, _, inside = image.removeprefix("package:").partition("/")
    package_folder = find_package_folder(package)
    if package_folder is None:
        raise UserError(f"table: {table}: {image}: no package {package!r} here; pip install the one that has it")
    return package_folder / inside


@functools.cache
def find_package_folder(package: str) -> Path | None:
    """Where a package is installed. It is found, not imported: none of its code has to run."""
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    folders = spec.submodule_search_locations if spec else None
    return Path(next(iter(folders))) if folders else None
