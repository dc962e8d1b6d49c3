"""An annotated set as Pascal VOC: one XML file for each picture."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from headstart.errors import UserError
from headstart.fetch_params import VocParams
from headstart.sources.folder import PICTURE_SUFFIXES, files_under, need_folder, shown
from headstart.sources.wanted import Box, Failed, Local, Wanted, only_label


@dataclass(frozen=True)
class Annotation:
    """One XML file: boxes as written, the size they were drawn on (None: not told), the picture's name."""

    boxes: tuple[Box, ...]
    frame: tuple[float, float] | None
    file_name: str


def wanted(params: VocParams, root: Path) -> Iterator[Wanted | Failed]:
    """Every picture of the folder, sorted by path, with the boxes of its XML file; without one it is background.

    A picture belongs to the XML file of the same name, or else to the one whose `<filename>` names it (labelImg does
    not mend that when files are renamed). VOC counts pixels from 1 and includes the last one; a set in which some
    box begins at 0 was written by a tool that counts from 0.

    Raises:
        UserError: a folder is missing, there is no picture in it, or no XML file.
    """
    folder = need_folder("voc.images", params.images, root)
    source = f"voc:{params.annotations}"
    annotations, failed = _annotations(need_folder("voc.annotations", params.annotations, root), params, source)
    if not annotations and not failed:
        raise UserError(f"voc.annotations: {params.annotations}: no .xml file in it; name the folder of annotations")
    first = 0.0 if any(min(b.xmin, b.ymin) < 1 for a in annotations.values() for b in a.boxes) else 1.0
    by_stem = {Path(key).name: key for key in annotations}
    by_name = {Path(annotation.file_name).name: key for key, annotation in annotations.items()}
    unused = dict(annotations)
    pictures = [path for path in files_under(folder) if path.suffix.lower() in PICTURE_SUFFIXES]
    if not pictures:
        raise UserError(f"voc.images: {params.images}: no pictures in it; name the folder of pictures")
    broken = {Path(item.location).stem for item in failed}
    for path in pictures:
        location = shown(Path(params.images) / path.relative_to(folder))
        same_place = path.relative_to(folder).with_suffix("").as_posix()
        key = same_place if same_place in annotations else by_stem.get(path.stem) or by_name.get(path.name, "")
        annotation = annotations.get(key)
        if annotation is None and path.stem in broken:
            failed.append(Failed(source, location, "annotation", "its annotation cannot be read"))
            continue
        unused.pop(key, None)
        boxes = (
            tuple(replace(b, xmin=b.xmin - first, ymin=b.ymin - first) for b in annotation.boxes) if annotation else ()
        )
        frame = annotation.frame if annotation else None
        yield Wanted(location, source, Local(path), label=only_label(boxes), boxes=boxes, frame=frame)
    yield from failed
    for key in unused:
        where = shown(Path(params.annotations) / f"{key}.xml")
        yield Failed(source, where, "missing", f"no picture for this annotation in {params.images}")


def _annotations(folder: Path, params: VocParams, source: str) -> tuple[dict[str, Annotation], list[Failed]]:
    annotations: dict[str, Annotation] = {}
    failed = []
    for path in files_under(folder):
        if path.suffix.lower() != ".xml":
            continue
        try:
            annotations[path.relative_to(folder).with_suffix("").as_posix()] = parse(path.read_bytes())
        except ValueError as error:
            where = shown(Path(params.annotations) / path.relative_to(folder))
            failed.append(Failed(source, where, "annotation", str(error), ignored=True))
    return annotations, failed


def parse(data: bytes) -> Annotation:
    """Read one VOC annotation.

    Raises:
        ValueError: it is no XML, defines entities (a bomb), or a box is not four numbers.
    """
    if b"<!ENTITY" in data.replace(b"\0", b""):  # also in UTF-16
        raise ValueError("an XML file that defines entities is not read")
    try:
        tree = ET.fromstring(data)  # noqa: S314 (no entities, see above)
    except ET.ParseError as error:
        raise ValueError(f"not an XML file ({error})") from None
    width, height = (_number(tree, f"size/{side}") or 0.0 for side in ("width", "height"))
    boxes = tuple(_box(item) for item in tree.iter("object"))
    return Annotation(boxes, (width, height) if width > 0 and height > 0 else None, tree.findtext("filename") or "")


def _box(item: ET.Element) -> Box:
    label = (item.findtext("name") or "").strip()
    corners = [_number(item, f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax")]
    if not label or None in corners:
        raise ValueError(f"an object without a name or without four numbers ({label or 'no name'})")
    xmin, ymin, xmax, ymax = (corner or 0.0 for corner in corners)
    return Box(label, xmin, ymin, xmax, ymax)


def _number(element: ET.Element, path: str) -> float | None:
    text = element.findtext(path)
    try:
        return None if text is None else float(text)
    except ValueError:
        raise ValueError(f"{path} is {text!r}, not a number") from None
