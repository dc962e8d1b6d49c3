"""The records of a source: images that it lists, and rejections of what cannot be used."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from headstart.base.manifest import Split


@dataclass(frozen=True)
class LocalFile:
    """Bytes on this machine: a whole file, or a part of one (a member of a tar)."""

    path: Path
    offset: int = 0
    size: int | None = None  # None: to the end


@dataclass(frozen=True)
class RemoteFile:
    """Bytes to be downloaded."""

    url: str  # http or https


@dataclass(frozen=True)
class SceneCell:
    """A picture file in a scene: where its upper left corner lies, and what its brightness is multiplied by."""

    path: Path
    x: int
    y: int
    brightness: float


@dataclass(frozen=True)
class Scene:
    """A picture to be composed: square cells on a background of one grey level, 0 to 255; sizes in pixels."""

    width: int
    height: int
    cell_size: int
    background: int
    cells: tuple[SceneCell, ...]


@dataclass(frozen=True)
class SourceBox:
    """One box by its corners, in the units of `SourceImage.frame`; `where` is its place in the annotations."""

    label: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float
    crowd: bool = False
    where: str = field(default="", compare=False)  # such as `a.xml: line 12`; two equal boxes are equal anywhere


@dataclass(frozen=True)
class SourceImage:
    """One picture that a source lists; not downloaded, opened or checked yet.

    Attributes:
        location: how the user refers to it: a path, a URL, `package:…`.
        source: kind and place, such as `folder:data/hike`.
        content: where the bytes are, or what they are composed of.
        frame: width and height that the boxes are measured against: `(1, 1)` for fractions, the annotation's own
            picture size, or None for pixels of the upright picture.
        stored_frame: the boxes refer to the stored pixels, before EXIF rotation; else `frame` decides.
        rotation: degrees counter-clockwise that make the stored pixels upright, where the source has better
            information than the file's EXIF. None: EXIF decides.
        min_side: least shorter side in pixels; a smaller picture is rejected.
        confidence: the annotator's, that the label is right; above 0, at most 1.
        columns: further columns of a table with their cells, in its order; None: it has no others.
    """

    location: str
    source: str
    content: LocalFile | RemoteFile | Scene
    label: str | None = None
    split: Split | None = None
    group: str | None = None
    boxes: tuple[SourceBox, ...] = ()
    frame: tuple[float, float] | None = None
    stored_frame: bool = False
    rotation: int | None = None
    min_side: int = 1
    license: str | None = None
    author: str | None = None
    landing_url: str | None = None
    confidence: float | None = None
    columns: tuple[tuple[str, str], ...] | None = None


@dataclass(frozen=True)
class Rejection:
    """A picture or a file that is not used: a line of failed.csv.

    Attributes:
        kind: one word for the summary, such as `truncated`.
        ignored: no picture is lost (a text file between the pictures): it is listed in failed.csv but does not count
            against `fetch.max_failed`.
    """

    source: str
    location: str
    kind: str
    reason: str
    ignored: bool = False


def unique_label(boxes: tuple[SourceBox, ...]) -> str | None:
    """The label of a picture all of whose boxes have the same one; None if there is no such label."""
    labels = {box.label for box in boxes}
    return labels.pop() if len(labels) == 1 else None


def hash_key(text: str) -> bytes:
    """Sort key for a random order that is the same on every machine: the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).digest()
