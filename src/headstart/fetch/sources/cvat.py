"""Source `cvat`: an export as "CVAT for images 1.1": one XML file for all pictures, and a folder of pictures."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from headstart.base.errors import UserError, missing_file
from headstart.base.manifest import Split
from headstart.fetch.sources.box_checks import check_units
from headstart.fetch.sources.cvat_boxes import read_box
from headstart.fetch.sources.listed_files import find_listed_files, normalize_name
from headstart.fetch.sources.paths import SPLIT_OF_FOLDER, require_folder
from headstart.fetch.sources.records import LocalFile, Rejection, SourceBox, SourceImage, unique_label
from headstart.fetch.sources.shapes import read_number
from headstart.fetch.sources.xml_files import XmlFile
from headstart.params.fetch import CvatParams


@dataclass
class _Picture:
    """One picture of the file, and why it cannot be used, as far as the annotations say so."""

    file_name: str
    frame: tuple[float, float] | None = None
    split: Split | None = None
    tags: set[str] = field(default_factory=set)
    boxes: list[SourceBox] = field(default_factory=list)
    problem: str = ""


def list_images(params: CvatParams, root: Path) -> Iterator[SourceImage | Rejection]:
    """Every picture of the XML file, in its order; one without shapes is background.

    Rectangles, outlines, ellipses, masks and cuboids give the upright box round them; a picture with a shape that has
    no box (points, lines, skeletons) is rejected. A tag is the picture's label. A subset named like a split pins it.
    Pictures are looked for by subset and name, by name, and by the name's last part.

    Raises:
        UserError: the folder or the file is missing, or the file is not an export as "CVAT for images".
    """
    folder = require_folder("cvat.images", params.images, root)
    where = f"cvat.annotations: {params.annotations}"
    xml = _read_xml(root / params.annotations, where)
    source = f"cvat:{params.annotations}"
    pictures: dict[str, _Picture] = {}
    for element in xml.root.iter("image"):
        picture = _read_picture(xml, element, folder, params.annotations)
        first = pictures.setdefault(normalize_name(picture.file_name), picture)
        if first is not picture:
            _merge(first, picture)
    items = _to_items(list(pictures.values()), folder, params.images, source)
    yield from check_units(items, source)


def _read_xml(path: Path, where: str) -> XmlFile:
    try:
        xml = XmlFile(path.read_bytes())
    except FileNotFoundError:
        raise missing_file(where, "name the annotations.xml of the export") from None
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror or error}); name the annotations.xml") from None
    except ValueError as error:
        raise UserError(f"{where}: {error}; export it again") from None
    track = xml.root.find(".//track")
    if track is not None:
        raise UserError(f'{where}: line {xml.line(track)}: tracks of a video; export it as "CVAT for images 1.1"')
    if xml.root.tag != "annotations" or xml.root.find("image") is None:
        raise UserError(f'{where}: no <annotations> with <image> in it; export it as "CVAT for images 1.1"')
    return xml


def _read_picture(xml: XmlFile, element: ET.Element, folder: Path, annotations: str) -> _Picture:
    name, subset = element.get("name", ""), element.get("subset", "")
    where = f"{annotations}: line {xml.line(element)}"
    if not name.strip():
        raise UserError(f"cvat.annotations: {where}: an image without a name; export it again")
    if subset and _exists(folder / subset / name):  # projects have a folder for each subset
        name = f"{subset}/{name}"
    picture = _Picture(name, split=SPLIT_OF_FOLDER.get(subset.lower()))
    try:
        sides = [read_number(element.get(side) or 0) for side in ("width", "height")]
        picture.frame = (sides[0], sides[1]) if min(sides) > 0 else None
        for shape in element:
            where = f"{annotations}: line {xml.line(shape)}"
            label = shape.get("label", "").strip()
            if shape.tag == "tag" and label:
                picture.tags.add(label)
            elif shape.tag != "attribute":
                picture.boxes.append(SourceBox(label, *read_box(shape), where=where))
    except ValueError as error:
        picture.problem = f"{where}: {error}"
    return picture


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a NUL: no file has such a name
        return False


def _merge(first: _Picture, second: _Picture) -> None:
    """Unite two entries of one picture; repeated boxes count once."""
    if first.frame and second.frame and first.frame != second.frame:
        first.problem = "it is listed twice, with different sizes"
    if first.split != second.split:
        first.problem = "it is listed twice, in different subsets"
    first.problem = first.problem or second.problem
    first.frame = first.frame or second.frame
    first.tags |= second.tags
    first.boxes += [box for box in second.boxes if box not in first.boxes]


def _to_items(pictures: list[_Picture], folder: Path, images: str, source: str) -> list[SourceImage | Rejection]:
    items: list[SourceImage | Rejection] = []
    files = find_listed_files([picture.file_name for picture in pictures], folder, images)
    for picture, (path, location, problem) in zip(pictures, files, strict=True):
        reason = problem or picture.problem
        if len(picture.tags) > 1 and not picture.boxes:
            reason = reason or f"it has the tags {', '.join(sorted(picture.tags))}, and a picture has one label"
        if reason:
            items.append(Rejection(source, location, "annotation", reason))
            continue
        boxes = tuple(picture.boxes)
        items.append(
            SourceImage(
                location=location,
                source=source,
                content=LocalFile(path),
                label=unique_label(boxes) if not picture.tags else _only(picture.tags),
                split=picture.split,
                boxes=boxes,
                frame=picture.frame,
            )
        )
    return items


def _only(tags: set[str]) -> str | None:
    return next(iter(tags)) if len(tags) == 1 else None
