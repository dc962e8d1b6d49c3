"""Source `voc`: an annotated set as Pascal VOC, one XML file for each picture."""

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

from headstart.base.errors import UserError
from headstart.fetch.sources.box_checks import check_units, order_corners
from headstart.fetch.sources.paths import list_pictures, printable_path, require_folder, walk_files
from headstart.fetch.sources.records import LocalFile, Rejection, SourceBox, SourceImage, unique_label
from headstart.fetch.sources.shapes import Corners, box_round_rotated, read_number
from headstart.fetch.sources.voc_matching import match_annotations
from headstart.fetch.sources.xml_files import XmlFile
from headstart.params.fetch import VocParams

_BOX_TAGS = ("bndbox", "robndbox")


@dataclass(frozen=True)
class VocAnnotation:
    """One XML file: boxes as written, the picture size they were drawn on (None: not given), the picture's name."""

    boxes: tuple[SourceBox, ...]
    frame: tuple[float, float] | None
    file_name: str


@dataclass(frozen=True)
class _Unreadable:
    """An XML file that cannot be used, and the picture's name, as far as it can be read."""

    reason: str
    file_name: str


def list_images(params: VocParams, root: Path) -> Iterator[SourceImage | Rejection]:
    """Every picture of the folder, sorted by path, with the boxes of its XML file; without one it is background.

    `match_annotations` finds the XML file of a picture. VOC counts pixels from 1 and includes the last one; a set in
    which some box begins at 0 was written by a tool that counts from 0.

    Raises:
        UserError: a folder is missing, there is no picture in it, or no XML file.
    """
    folder = require_folder("voc.images", params.images, root)
    annotations = _read_annotations(require_folder("voc.annotations", params.annotations, root), params.annotations)
    if not annotations:
        raise UserError(f"voc.annotations: {params.annotations}: no .xml file in it; name the folder of annotations")
    pictures = [path.relative_to(folder) for path in list_pictures("voc.images", params.images, folder)]
    names = [PureWindowsPath(annotation.file_name).name for annotation in annotations.values()]  # \ and / separate
    matches = match_annotations(pictures, list(annotations), names)
    source = f"voc:{params.annotations}"
    items: list[SourceImage | Rejection] = []
    for picture in pictures:
        location = printable_path(Path(params.images) / picture)
        annotation = annotations[matches.annotation_of[picture]] if picture in matches.annotation_of else None
        if picture in matches.doubts:
            items.append(Rejection(source, location, "annotation", matches.doubts[picture]))
        elif isinstance(annotation, _Unreadable):
            items.append(Rejection(source, location, "annotation", annotation.reason))
        else:
            boxes, frame = (annotation.boxes, annotation.frame) if annotation else ((), None)
            content = LocalFile(folder / picture)
            items.append(SourceImage(location, source, content, unique_label(boxes), boxes=boxes, frame=frame))
    fix = "give each <size> its width and height, or export boxes in pixels"
    yield from check_units(_count_from_zero(items), source, fix)
    for path in matches.unclaimed:
        location, lost = printable_path(Path(params.annotations) / path), annotations[path]
        reason = lost.reason if isinstance(lost, _Unreadable) else f"no picture for this annotation in {params.images}"
        yield Rejection(source, location, "missing", reason)


def _count_from_zero(items: list[SourceImage | Rejection]) -> list[SourceImage | Rejection]:
    pictures = [item for item in items if isinstance(item, SourceImage)]
    if any(min(box.xmin, box.ymin) < 1 for picture in pictures for box in picture.boxes):
        return items
    return [
        item
        if isinstance(item, Rejection)
        else replace(item, boxes=tuple(replace(box, xmin=box.xmin - 1, ymin=box.ymin - 1) for box in item.boxes))
        for item in items
    ]


def _read_annotations(folder: Path, display_folder: str) -> dict[Path, VocAnnotation | _Unreadable]:
    """Annotations by path relative to the folder."""
    annotations: dict[Path, VocAnnotation | _Unreadable] = {}
    for path in walk_files(folder):
        if path.suffix.lower() != ".xml":
            continue
        inside = path.relative_to(folder)
        where = printable_path(Path(display_folder) / inside)
        data = b""
        try:
            data = path.read_bytes()
            annotations[inside] = parse_annotation(data, where)
        except OSError as error:
            annotations[inside] = _Unreadable(f"{where}: cannot be read ({error.strerror or error})", "")
        except ValueError as error:
            name = re.search(rb"<filename>\s*(.*?)\s*</filename>", data)
            annotations[inside] = _Unreadable(str(error), name.group(1).decode(errors="replace") if name else "")
    return annotations


def parse_annotation(data: bytes, where: str = "its annotation") -> VocAnnotation:
    """Read one VOC annotation.

    Args:
        data: the XML file.
        where: the file as an error names it.

    Raises:
        ValueError: it is not VOC XML, defines entities (an XML bomb), or an object is not a name and boxes.
    """
    try:
        xml = XmlFile(data)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if xml.root.tag != "annotation":
        raise ValueError(f"{where}: it begins with <{xml.root.tag}>, and VOC with <annotation>")
    try:
        width, height = (_read_side(xml.root, side) for side in ("width", "height"))
    except ValueError as error:
        raise ValueError(f"{where}: <size>: {error}") from None
    boxes: list[SourceBox] = []
    for element in xml.root.iter("object"):
        place = f"{where}: line {xml.line(element)}"
        try:
            boxes += _read_object(element, place)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
    of_parts = {element for part in xml.root.iter("part") for element in part.iter() if element.tag in _BOX_TAGS}
    if sum(element.tag.lower() in _BOX_TAGS for element in xml.root.iter()) != len(boxes) + len(of_parts):
        raise ValueError(f"{where}: a box that is not in an <object>")
    frame = (width, height) if width > 0 and height > 0 else None
    return VocAnnotation(tuple(boxes), frame, (xml.root.findtext("filename") or "").strip())


def _read_side(root: ET.Element, side: str) -> float:
    text = root.findtext(f"size/{side}")
    return read_number(text) if text and text.strip() else 0.0


def _read_object(element: ET.Element, where: str) -> list[SourceBox]:
    """The boxes of an object; those of its parts (a person's head) are not among them."""
    labels = {(name.text or "").strip() for name in element.findall("name")}
    if len(labels) != 1 or labels == {""}:
        raise ValueError("an object without a name" if labels <= {""} else f"an object with {len(labels)} names")
    label = labels.pop()
    found = [_read_bndbox(box) for box in element.findall("bndbox")]
    found += [_read_robndbox(box) for box in element.findall("robndbox")]
    if not found:
        raise ValueError(f"an object without a bndbox ({label})")
    return [order_corners(SourceBox(label, *corners, where=where)) for corners in found]


def _read_bndbox(element: ET.Element) -> Corners:
    xmin, ymin, xmax, ymax = (_read_child(element, name) for name in ("xmin", "ymin", "xmax", "ymax"))
    return xmin, ymin, xmax, ymax


def _read_robndbox(element: ET.Element) -> Corners:
    """The box round a turned rectangle of roLabelImg: centre, width, height, and an angle in radians."""
    x, y, width, height, angle = (_read_child(element, name) for name in ("cx", "cy", "w", "h", "angle"))
    if abs(angle) > math.tau:
        raise ValueError(f"robndbox/angle is {angle:g}, and not in radians")
    corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return box_round_rotated(corners, math.degrees(angle))


def _read_child(element: ET.Element, name: str) -> float:
    texts = [child.text or "" for child in element.findall(name)]
    if len(texts) != 1:
        raise ValueError(f"{element.tag} has {len(texts) or 'no'} {name}")
    try:
        return read_number(texts[0])
    except ValueError as error:
        raise ValueError(f"{element.tag}/{name}: {error}") from None
