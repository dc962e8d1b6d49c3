"""Source `coco`: an annotated set as one COCO JSON file and a folder of pictures."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headstart.base.errors import UserError, missing_file
from headstart.base.manifest import xywh_to_xyxy
from headstart.fetch.sources.paths import require_folder
from headstart.fetch.sources.records import LocalFile, Rejection, SourceBox, SourceImage, unique_label
from headstart.params.fetch import CocoParams


def list_images(params: CocoParams, root: Path) -> Iterator[SourceImage | Rejection]:
    """Every picture of the JSON file, in its order; one without annotations is background.

    `file_name` is looked for under the folder of pictures, first as it stands, then by its last part: exporters
    prefix it with folders of their own machine.

    Raises:
        UserError: the folder or the file is missing, or the file is not COCO JSON.
    """
    folder = require_folder("coco.images", params.images, root)
    data = _read_json(root / params.annotations, params.annotations)
    source = f"coco:{params.annotations}"
    try:
        names = {category["id"]: str(category["name"]) for category in data["categories"]}
        licenses = {entry["id"]: entry.get("url") or entry.get("name") for entry in data.get("licenses") or []}
        boxes_by_image, rejections = _read_boxes(data, names, source)
        yield from rejections
        for image in data["images"]:
            path = _image_path(folder, str(image["file_name"]))
            boxes = tuple(boxes_by_image.get(image["id"], ()))
            yield SourceImage(
                location=(Path(params.images) / path.relative_to(folder)).as_posix(),
                source=source,
                content=LocalFile(path),
                label=unique_label(boxes),
                boxes=boxes,
                frame=_annotated_size(image),
                license=licenses.get(image.get("license")),
                landing_url=image.get("flickr_url") or None,
            )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"coco.annotations: {params.annotations}: invalid COCO ({problem}); export it again") from None


def _read_json(path: Path, display_path: str) -> Any:
    where = f"coco.annotations: {display_path}"
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise missing_file(where, "name the JSON file of the export") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: not a JSON file ({error})") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise UserError(f"{where}: no list {key!r} in it; export it as COCO")
    if not data["images"]:
        raise UserError(f"{where}: no pictures in it; export it again")
    return data


def _read_boxes(data: Any, names: dict[Any, str], source: str) -> tuple[dict[Any, list[SourceBox]], list[Rejection]]:
    """Boxes by image id, and annotations that cannot be used: of no picture, no category, or without a box."""
    file_names = {image["id"]: str(image["file_name"]) for image in data["images"]}
    boxes: dict[Any, list[SourceBox]] = defaultdict(list)
    rejections = []
    for annotation in data["annotations"]:
        image, category = annotation.get("image_id"), annotation.get("category_id")
        bbox = annotation.get("bbox") or []
        if image not in file_names:
            reason = f"box dropped: no picture has the id {image}"
        elif category not in names:
            reason = f"box dropped: no category has the id {category}"
        elif len(bbox) != 4:
            reason = f"annotation without a box ({names[category]})"
        else:
            corners = xywh_to_xyxy([float(value) for value in bbox])
            boxes[image].append(SourceBox(names[category], *corners, bool(annotation.get("iscrowd"))))
            continue
        location = file_names.get(image, f"annotation {annotation.get('id')}")
        rejections.append(Rejection(source, location, "box", reason, ignored=True))
    return boxes, rejections


def _image_path(folder: Path, file_name: str) -> Path:
    name = Path(file_name.replace("\\", "/"))
    is_inside = not name.is_absolute() and ".." not in name.parts
    return folder / name if is_inside and (folder / name).exists() else folder / name.name


def _annotated_size(image: Any) -> tuple[float, float] | None:
    """Width and height of the picture that the boxes were drawn on, where the file has them."""
    width, height = image.get("width"), image.get("height")
    return (float(width), float(height)) if width and height else None
