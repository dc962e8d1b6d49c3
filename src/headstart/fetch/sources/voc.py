"""Source `voc`: an annotated set as Pascal VOC, one XML file for each picture."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from headstart.base.errors import UserError
from headstart.fetch.sources.paths import list_pictures, printable_path, require_folder, walk_files
from headstart.fetch.sources.records import LocalFile, Rejection, SourceBox, SourceImage, unique_label
from headstart.params.fetch import VocParams


@dataclass(frozen=True)
class VocAnnotation:
    """One XML file: boxes as written, the picture size they were drawn on (None: not given), the picture's name."""

    boxes: tuple[SourceBox, ...]
    frame: tuple[float, float] | None
    file_name: str


def list_images(params: VocParams, root: Path) -> Iterator[SourceImage | Rejection]:
    """Every picture of the folder, sorted by path, with the boxes of its XML file; without one it is background.

    A picture belongs to the XML file of the same name, or else to the one whose `<filename>` names it (labelImg does
    not update file names when files are renamed). VOC counts pixels from 1 and includes the last one; a set in which
    some box begins at 0 was written by a tool that counts from 0.

    Raises:
        UserError: a folder is missing, there is no picture in it, or no XML file.
    """
    folder = require_folder("voc.images", params.images, root)
    source = f"voc:{params.annotations}"
    annotations, failed = _read_annotations(require_folder("voc.annotations", params.annotations, root), params, source)
    if not annotations and not failed:
        raise UserError(f"voc.annotations: {params.annotations}: no .xml file in it; name the folder of annotations")
    first = 0.0 if any(min(b.xmin, b.ymin) < 1 for a in annotations.values() for b in a.boxes) else 1.0
    key_of_stem = {Path(key).name: key for key in annotations}
    key_of_file_name = {Path(annotation.file_name).name: key for key, annotation in annotations.items()}
    failed_stems = {Path(rejection.location).stem for rejection in failed}
    unused = dict(annotations)
    for path in list_pictures("voc.images", params.images, folder):
        inside = path.relative_to(folder)
        location = printable_path(Path(params.images) / inside)
        key = inside.with_suffix("").as_posix()  # the same path first, then the same name
        if key not in annotations:
            key = key_of_stem.get(path.stem) or key_of_file_name.get(path.name, "")
        annotation = annotations.get(key)
        if annotation is None and path.stem in failed_stems:
            failed.append(Rejection(source, location, "annotation", "its annotation cannot be read"))
            continue
        unused.pop(key, None)
        found = annotation.boxes if annotation else ()
        boxes = tuple(replace(box, xmin=box.xmin - first, ymin=box.ymin - first) for box in found)
        frame = annotation.frame if annotation else None
        yield SourceImage(location, source, LocalFile(path), label=unique_label(boxes), boxes=boxes, frame=frame)
    yield from failed
    for key in unused:
        location = printable_path(Path(params.annotations) / f"{key}.xml")
        yield Rejection(source, location, "missing", f"no picture for this annotation in {params.images}")


def _read_annotations(folder: Path, params: VocParams, source: str) -> tuple[dict[str, VocAnnotation], list[Rejection]]:
    """Annotations by path without suffix, relative to the folder, and files that cannot be read."""
    annotations: dict[str, VocAnnotation] = {}
    failed = []
    for path in walk_files(folder):
        if path.suffix.lower() != ".xml":
            continue
        try:
            annotations[path.relative_to(folder).with_suffix("").as_posix()] = parse_annotation(path.read_bytes())
        except ValueError as error:
            location = printable_path(Path(params.annotations) / path.relative_to(folder))
            failed.append(Rejection(source, location, "annotation", str(error), ignored=True))
    return annotations, failed


def parse_annotation(data: bytes) -> VocAnnotation:
    """Read one VOC annotation.

    Raises:
        ValueError: it is not XML, defines entities (an XML bomb), or a box is not four numbers.
    """
    if b"<!ENTITY" in data.replace(b"\0", b""):  # also in UTF-16
        raise ValueError("an XML file that defines entities is not read")
    try:
        tree = ET.fromstring(data)  # noqa: S314 (no entities, see above)
    except ET.ParseError as error:
        raise ValueError(f"not an XML file ({error})") from None
    width, height = (_parse_number(tree, f"size/{side}") or 0.0 for side in ("width", "height"))
    boxes = tuple(_parse_box(element) for element in tree.iter("object"))
    return VocAnnotation(boxes, (width, height) if width > 0 and height > 0 else None, tree.findtext("filename") or "")


def _parse_box(element: ET.Element) -> SourceBox:
    label = (element.findtext("name") or "").strip()
    corners = [_parse_number(element, f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax")]
    if not label or None in corners:
        raise ValueError(f"an object without a name or without four numbers ({label or 'no name'})")
    xmin, ymin, xmax, ymax = (corner or 0.0 for corner in corners)
    return SourceBox(label, xmin, ymin, xmax, ymax)


def _parse_number(element: ET.Element, path: str) -> float | None:
    text = element.findtext(path)
    try:
        return None if text is None else float(text)
    except ValueError:
        raise ValueError(f"{path} is {text!r}, not a number") from None
