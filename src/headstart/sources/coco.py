"""An annotated set as one COCO JSON file and a folder of pictures."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headstart.errors import UserError, missing_file
from headstart.fetch_params import CocoParams
from headstart.sources.folder import need_folder
from headstart.sources.wanted import Box, Failed, Local, Wanted, only_label


def wanted(params: CocoParams, root: Path) -> Iterator[Wanted | Failed]:
    """Every picture of the JSON file, in its order; one without annotations is background.

    `file_name` is looked for under the folder of pictures, first as it stands, then by its last part: exporters put
    in front of it what was true on their machine.

    Raises:
        UserError: the folder or the file is missing, or the file is no COCO JSON.
    """
    folder = need_folder("coco.images", params.images, root)
    data = _read(root / params.annotations, params.annotations)
    source = f"coco:{params.annotations}"
    try:
        names = {category["id"]: str(category["name"]) for category in data["categories"]}
        licenses = {entry["id"]: entry.get("url") or entry.get("name") for entry in data.get("licenses") or []}
        boxes, failed = _boxes(data, names, source)
        yield from failed
        for image in data["images"]:
            path = _locate(folder, str(image["file_name"]))
            its_boxes = tuple(boxes.get(image["id"], ()))
            yield Wanted(
                location=(Path(params.images) / path.relative_to(folder)).as_posix(),
                source=source,
                content=Local(path),
                label=only_label(its_boxes),
                boxes=its_boxes,
                frame=_frame(image),
                license=licenses.get(image.get("license")),
                landing_url=image.get("flickr_url") or None,
            )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"coco.annotations: {params.annotations}: not in order ({what}); export it again") from None


def _read(path: Path, shown: str) -> Any:
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise missing_file(f"coco.annotations: {shown}", "name the JSON file of the export") from None
    except (OSError, ValueError) as error:
        raise UserError(f"coco.annotations: {shown}: not a JSON file ({error})") from None
    parts = ("images", "annotations", "categories")
    lacking = [part for part in parts if not isinstance(data, dict) or not isinstance(data.get(part), list)]
    if lacking:
        raise UserError(f"coco.annotations: {shown}: no list {lacking[0]!r} in it; export it as COCO")
    if not data["images"]:
        raise UserError(f"coco.annotations: {shown}: no pictures in it; export it again")
    return data


def _boxes(data: Any, names: dict[Any, str], source: str) -> tuple[dict[Any, list[Box]], list[Failed]]:
    """Boxes by picture, and annotations that cannot be used: of no picture, no category, or without a box."""
    known = {image["id"]: str(image["file_name"]) for image in data["images"]}
    boxes: dict[Any, list[Box]] = defaultdict(list)
    failed = []
    for annotation in data["annotations"]:
        image, category = annotation.get("image_id"), annotation.get("category_id")
        where = known.get(image, f"annotation {annotation.get('id')}")
        corners = annotation.get("bbox") or []
        if image not in known:
            failed.append(Failed(source, where, "box", f"box dropped: no picture has the id {image}", ignored=True))
        elif category not in names:
            failed.append(Failed(source, where, "box", f"box dropped: no category has the id {category}", ignored=True))
        elif len(corners) != 4:
            failed.append(Failed(source, where, "box", f"annotation without a box ({names[category]})", ignored=True))
        else:
            x, y, width, height = (float(value) for value in corners)
            crowd = bool(annotation.get("iscrowd"))
            boxes[image].append(Box(names[category], x, y, x + width, y + height, crowd))
    return boxes, failed


def _locate(folder: Path, file_name: str) -> Path:
    name = Path(file_name.replace("\\", "/"))
    inside = not name.is_absolute() and ".." not in name.parts
    return folder / name if inside and (folder / name).exists() else folder / name.name


def _frame(image: Any) -> tuple[float, float] | None:
    width, height = image.get("width"), image.get("height")
    return (float(width), float(height)) if width and height else None
