"""Source `coco`: an annotated set as one COCO JSON file and a folder of pictures."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from headstart.base.errors import UserError
from headstart.fetch.sources.box_checks import check_units
from headstart.fetch.sources.coco_boxes import check_areas, check_not_corners, read_crowd, read_shape
from headstart.fetch.sources.json_files import read_json
from headstart.fetch.sources.listed_files import find_listed_files, normalize_name
from headstart.fetch.sources.paths import require_folder
from headstart.fetch.sources.records import LocalFile, Rejection, SourceBox, SourceImage, unique_label
from headstart.fetch.sources.shapes import read_number
from headstart.params.fetch import CocoParams


@dataclass
class _Picture:
    """One entry of `images`: its boxes, and why it cannot be used, as far as the annotations say so."""

    file_name: str
    frame: tuple[float, float] | None
    license: str | None
    landing_url: str | None
    boxes: list[SourceBox] = field(default_factory=list)
    problem: str = ""


def list_images(params: CocoParams, root: Path) -> Iterator[SourceImage | Rejection]:
    """Every picture of the JSON file, in its order; one without annotations is background.

    `file_name` is looked for under the folder of pictures, first as it stands, then by its last part: exporters
    prefix it with folders of their own machine. A picture with an annotation that cannot be used is rejected.

    Raises:
        UserError: the folder or the file is missing, the file is not COCO JSON, or ids are not unique.
    """
    folder = require_folder("coco.images", params.images, root)
    where = f"coco.annotations: {params.annotations}"
    data = _read_json(root / params.annotations, where)
    source = f"coco:{params.annotations}"
    try:
        names = _read_categories(data["categories"], where)
        pictures = _read_pictures(data, where)
        dangling = _read_annotations(data["annotations"], names, pictures, params.annotations)
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{where}: invalid COCO ({error}); export it again") from None
    merged = _merge_by_file_name(pictures)
    check_areas(data["annotations"], where)
    check_not_corners(((one.boxes, one.frame) for one in merged if not one.problem), "coco.annotations")
    items = _to_items(merged, folder, params.images, source)
    yield from check_units(items, source, "give each image its width and height, or export boxes in pixels")
    yield from dangling


def _read_json(path: Path, where: str) -> dict[str, Any]:
    data = read_json(path, where, "name the JSON file of the export")
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise UserError(f"{where}: no list {key!r} in it; export it as COCO")
        wrong = next((n for n, entry in enumerate(data[key], start=1) if not isinstance(entry, dict)), None)
        if wrong is not None:
            raise UserError(f"{where}: {key}: entry {wrong} is not an object in braces; export it again")
    if not data["images"]:
        raise UserError(f"{where}: no pictures in it; export it again")
    return dict(data)


def _read_id(value: object) -> str:
    """An id as text: exporters write 1 in one list and "1" or 1.0 in another.

    Raises:
        ValueError: it is neither text nor a whole number.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
        return str(int(value))
    raise ValueError(f"the id {str(value)[:40]!r} is neither a whole number nor text")


def _require(entry: dict[str, Any], key: str, what: str) -> object:
    if key not in entry:
        raise ValueError(f"no {key!r} in {what}")
    return entry[key]


def _read_categories(entries: list[Any], where: str) -> dict[str, str]:
    """Category id -> name. Two ids of one name are one label; one id of two names is an error."""
    names: dict[str, str] = {}
    for number, entry in enumerate(entries, start=1):
        name = _read_text(_require(entry, "name", f"category {number}"), "category name").strip()
        key = _read_id(_require(entry, "id", f"category {number}"))
        if names.setdefault(key, name) != name:
            raise UserError(
                f'{where}: the category id {key} is of {names[key]!r} and of {name!r} (1 and "1" count as one); '
                "give each category an id of its own"
            )
    return names


def _read_pictures(data: dict[str, Any], where: str) -> dict[str, _Picture]:
    """Image id -> picture; the same entry written twice counts once."""
    licenses = _read_licenses(data.get("licenses"))
    pictures: dict[str, _Picture] = {}
    for number, entry in enumerate(data["images"], start=1):
        key = _read_id(_require(entry, "id", f"image {number}"))
        file_name = _read_text(_require(entry, "file_name", f"image {number}"), "file_name")
        picture = _Picture(
            file_name=file_name,
            frame=None,
            license=licenses.get(str(entry.get("license"))),
            landing_url=str(entry.get("flickr_url") or "") or None,
        )
        try:
            picture.frame = _annotated_size(entry)
        except ValueError as error:
            picture.problem = str(error)
        first = pictures.setdefault(key, picture)
        if first.file_name != file_name:
            raise UserError(
                f"{where}: {first.file_name!r} and {file_name!r} have the same id {key}, so their boxes are mixed up; "
                "number the images 1, 2, 3, … or export with another tool (VIA cuts ids out of file names)"
            )
        _note_contradiction(first, picture)
    return pictures


def _read_licenses(entries: object) -> dict[str, str]:
    """License id as text -> address or name; tools leave empty entries there."""
    entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    named = {str(entry.get("id")): entry.get("url") or entry.get("name") for entry in entries}
    return {key: str(name) for key, name in named.items() if name}


def _read_text(value: object, what: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise ValueError(f"a {what} is {str(value)[:40]!r}, not text")
    if any("\ud800" <= character <= "\udfff" for character in str(value)):
        raise ValueError(f"a {what} is not Unicode")
    return str(value)


def _annotated_size(entry: dict[str, Any]) -> tuple[float, float] | None:
    """Width and height of the picture that the boxes were drawn on, where the file has them."""
    if not entry.get("width") or not entry.get("height"):
        return None
    width, height = read_number(entry["width"]), read_number(entry["height"])
    if min(width, height) <= 0:
        raise ValueError(f"its width and height are {width:g} and {height:g}")
    return width, height


def _note_contradiction(first: _Picture, second: _Picture) -> None:
    if first.frame and second.frame and first.frame != second.frame:
        first.problem = "it is listed twice, with different sizes"
    first.frame = first.frame or second.frame
    first.problem = first.problem or second.problem


def _read_annotations(
    annotations: list[Any], names: dict[str, str], pictures: dict[str, _Picture], file_name: str
) -> list[Rejection]:
    """Give every picture its boxes, or the reason why it has to be rejected; returns annotations of no picture."""
    dangling = []
    similar: dict[str, list[_Picture]] = defaultdict(list)
    for key, picture in pictures.items():
        path = PurePosixPath(normalize_name(picture.file_name))
        for form in {_without_zeros(key), path.as_posix(), path.name, path.stem}:
            similar[form].append(picture)
    for number, annotation in enumerate(annotations, start=1):
        name = f"{file_name}: annotation {annotation.get('id', f'no. {number}')}"
        try:
            picture = pictures[_read_id(annotation.get("image_id"))]
        except (KeyError, ValueError):
            written = annotation.get("image_id")
            reason = f"no picture has its image_id {written!r}"
            # `0001` for 1, or a file's name: it may be one of theirs, and would be missing there.
            meant = similar.get(str(written)) or similar.get(_without_zeros(str(written)), [])
            for picture in meant:
                picture.problem = picture.problem or f"{name}: {reason}, but it may be of this one"
            if meant:
                continue
            dangling.append(Rejection(f"coco:{file_name}", name, "annotation", reason))
            continue
        try:
            picture.boxes.append(_read_box(annotation, names, name))
        except ValueError as error:
            picture.problem = picture.problem or f"{name}: {error}"
    return dangling


def _without_zeros(key: str) -> str:
    return key.lstrip("0") or "0"


def _read_box(annotation: dict[str, Any], names: dict[str, str], where: str) -> SourceBox:
    category = annotation.get("category_id")
    try:
        label = names[_read_id(category)]
    except (KeyError, ValueError):
        raise ValueError(f"no category has its category_id {category!r}") from None
    return SourceBox(label, *read_shape(annotation), crowd=read_crowd(annotation.get("iscrowd")), where=where)


def _merge_by_file_name(pictures: dict[str, _Picture]) -> list[_Picture]:
    """One picture for each file name: boxes of entries that name the same file are united, repeated ones once."""
    merged: dict[str, _Picture] = {}
    for picture in pictures.values():
        first = merged.setdefault(normalize_name(picture.file_name), picture)
        if first is not picture:
            first.boxes += [box for box in picture.boxes if box not in first.boxes]
            _note_contradiction(first, picture)
    return list(merged.values())


def _to_items(pictures: list[_Picture], folder: Path, images: str, source: str) -> list[SourceImage | Rejection]:
    items: list[SourceImage | Rejection] = []
    files = find_listed_files([picture.file_name for picture in pictures], folder, images)
    for picture, (path, location, problem) in zip(pictures, files, strict=True):
        if reason := problem or picture.problem:
            items.append(Rejection(source, location, "annotation", reason))
            continue
        boxes = tuple(picture.boxes)
        items.append(
            SourceImage(
                location=location,
                source=source,
                content=LocalFile(path),
                label=unique_label(boxes),
                boxes=boxes,
                frame=picture.frame,
                license=picture.license,
                landing_url=picture.landing_url,
            )
        )
    return items
