"""What a source hands on: a picture it wants, or one it cannot give and why."""

from dataclasses import dataclass
from pathlib import Path

from headstart.section import Split
from headstart.sources.scene import Scene


@dataclass(frozen=True)
class Local:
    """Bytes on this machine: a whole file, or a part of one (a member of a tar)."""

    path: Path
    offset: int = 0
    size: int | None = None  # None: to the end


@dataclass(frozen=True)
class Remote:
    """Bytes to be downloaded."""

    url: str  # http or https


@dataclass(frozen=True)
class Box:
    """One box by its corners, in the units of `Wanted.frame`."""

    label: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float
    crowd: bool = False


def only_label(boxes: tuple[Box, ...]) -> str | None:
    """The label of a picture all of whose boxes have the same one; None if there is no such label."""
    labels = {box.label for box in boxes}
    return labels.pop() if len(labels) == 1 else None


@dataclass(frozen=True)
class Wanted:
    """One picture that a source names; nothing about it has been looked at yet.

    Attributes:
        location: what the user knows it by: a path, a URL, `package:…`.
        source: kind and place, such as `folder:data/hike`.
        content: where the bytes are, or what they are made of.
        frame: width and height that the boxes are measured against: `(1, 1)` for fractions, the annotation's own
            picture size, or None for pixels of the upright picture.
        stored_frame: the boxes are in the frame of the stored pixels; else `frame` tells, or they are upright.
        rotation: degrees counter-clockwise that make the stored pixels upright, where the source knows better than
            the file's EXIF. None: EXIF decides.
        min_side: shortest side in pixels that is let in.
    """

    location: str
    source: str
    content: Local | Remote | Scene
    label: str | None = None
    split: Split | None = None
    group: str | None = None
    boxes: tuple[Box, ...] = ()
    frame: tuple[float, float] | None = None
    stored_frame: bool = False
    rotation: int | None = None
    min_side: int = 1
    license: str | None = None
    author: str | None = None
    landing_url: str | None = None


@dataclass(frozen=True)
class Failed:
    """A picture, or a part of one, that is not used: a line of failed.csv.

    Attributes:
        kind: one word for the summary, such as `truncated`.
        ignored: True where no picture is lost by it (a text file between the pictures, a box without area):
            it is written down but does not count against `fetch.max_failed`.
    """

    source: str
    location: str
    kind: str
    reason: str
    ignored: bool = False
