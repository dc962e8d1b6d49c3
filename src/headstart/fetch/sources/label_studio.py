"""Source `label_studio`: pictures and an export of Label Studio, as JSON or JSON-MIN."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from headstart.base.errors import UserError
from headstart.fetch.sources.annotated import Annotated, Pictures, agree, read_list, read_object, to_items
from headstart.fetch.sources.json_files import read_json
from headstart.fetch.sources.label_studio_regions import read_results
from headstart.fetch.sources.paths import PICTURE_SUFFIXES
from headstart.fetch.sources.records import Rejection, SourceImage
from headstart.params.fetch import LabelStudioParams

_OPEN = "not annotated yet; left out, for it may show anything"
_ROW_KEYS = {"id", "annotation_id", "annotator", "created_at", "updated_at", "lead_time", "agreement"}


def list_images(params: LabelStudioParams, root: Path) -> Iterator[SourceImage | Rejection]:
    """Every annotated task, in its order; one whose annotation was submitted without a region is background.

    Rectangles (also turned ones), ellipses and outlines give the box round them, choices the label of the picture. A
    picture with a region that has no box (brush, key points) is rejected, and so is one whose annotators disagree.
    Tasks without an annotation are left out; predictions are no annotations.

    Raises:
        UserError: the folder or the file is missing, the file is no export of Label Studio, or nothing is annotated.
    """
    pictures = Pictures("label_studio.images", params.images, root)
    where = f"label_studio.annotations: {params.annotations}"
    data = read_json(root / params.annotations, where, "name the JSON file of the export")
    tasks = [data] if isinstance(data, dict) and "data" in data else data
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, dict) for task in tasks):
        raise UserError(f"{where}: no list of tasks; export it from Label Studio as JSON or JSON-MIN")
    entries = []
    for number, task in enumerate(tasks, start=1):
        place = f"{params.annotations}: task {task.get('id', f'no. {number}')}"
        entries.append(_read_task(task, place) if "data" in task else _read_row(task, place))
    if all(entry.is_open for entry in entries):
        raise UserError(f"{where}: no task has an annotation; annotate some and export again")
    yield from to_items(entries, pictures, f"label_studio:{params.annotations}")


def _read_task(task: dict[str, Any], where: str) -> Annotated:
    """One task of a JSON export: `data`, and a list of annotations with results."""
    names = _find_names(task["data"], where)
    if isinstance(names, Annotated):
        return names
    try:
        written = task.get("annotations", task.get("completions"))  # completions: before version 1
        annotations = [read_object(one, "an annotation") for one in read_list(written or [], "`annotations`")]
        submitted = [one for one in annotations if not one.get("was_cancelled")]
        results = [read_list(one.get("result"), "`result`") for one in submitted]
    except ValueError as error:
        return Annotated(names, where, problem=str(error))
    if not submitted:
        return Annotated(names, where, problem=_OPEN, is_open=True)
    best = [number for number, one in enumerate(submitted) if one.get("ground_truth")]
    readings = [_read_results(result, names, where) for result in results]
    if len(best) == 1:
        return readings[best[0]]
    return _agreed(readings)


def _agreed(readings: Sequence[Annotated]) -> Annotated:
    """The one reading of all annotators."""
    first = readings[0]
    if all(agree(first, other) for other in readings[1:]):
        return first
    problem = f"{len(readings)} annotations that differ; delete or skip all but one, or mark one as ground truth"
    return replace(first, boxes=(), label=None, problem=problem)


def _read_results(result: list[Any], names: tuple[str, ...], where: str) -> Annotated:
    try:
        boxes, frame, label = read_results(result, where)
    except ValueError as error:
        return Annotated(names, where, problem=str(error))
    return Annotated(names, where, boxes, frame, label)


def _read_row(row: dict[str, Any], where: str) -> Annotated:
    """One task of a JSON-MIN export: columns of data, and the results by the name of their control."""
    names = _find_names(row, where)
    if isinstance(names, Annotated):
        return names
    results: list[Any] = []
    for key, value in row.items():
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            sizes = [{side: one.get(side) for side in ("original_width", "original_height")} for one in value]
            results += [{"value": one, **size} for one, size in zip(value, sizes, strict=True)]
        elif key in ("choice", "choices") or (isinstance(value, dict) and "choices" in value):
            options = value.get("choices") if isinstance(value, dict) else value
            choices = options if isinstance(options, list) else [options]
            results.append({"type": "choices", "value": {"choices": choices}})
    if not results and row.get("annotation_id") is None:
        return Annotated(names, where, problem=_OPEN, is_open=True)
    return _read_results(results, names, where)


def _find_names(data: object, where: str) -> tuple[str, ...] | Annotated:
    """The names of a task's picture, as `Pictures.find` looks for them; an entry with a problem where it has none."""
    columns = data.items() if isinstance(data, dict) else ()
    texts = {key: value for key, value in columns if isinstance(value, str) and key not in _ROW_KEYS}
    found = [value for value in texts.values() if _suffix(value) in PICTURE_SUFFIXES]
    if len(set(found)) != 1:
        found = [texts[key] for key in ("image", "img") if key in texts and (not found or texts[key] in found)]
    if not found:
        return Annotated((), where, problem="no picture in its `data`; the column `image` is expected")
    return _name_forms(found[0])


def _suffix(address: str) -> str:
    last = _name_forms(address)[0].rpartition("/")[2]
    return f".{last.rpartition('.')[2].lower()}" if "." in last else ""


def _name_forms(address: str) -> tuple[str, ...]:
    """The path of an address, decoded; then without the 8 hexadecimal digits that an upload puts before its name."""
    try:
        parts = urlsplit(address)
    except ValueError:  # such as http://[
        return (address,)
    local = parse_qs(parts.query).get("d") if parts.path.endswith("/local-files/") else None
    path = local[0] if local else unquote(parts.path or address)
    folder, _, last = path.rpartition("/")
    plain = re.sub(r"^[0-9a-f]{8}-(?=.)", "", last)
    forms = (path, last, f"{folder}/{plain}", plain)
    return tuple(dict.fromkeys(form for form in forms if form.strip("/"))) or (address,)
