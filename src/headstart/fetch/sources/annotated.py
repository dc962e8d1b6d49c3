"""Entries of an annotation tool joined with the pictures that they name: Label Studio, LabelMe, VIA."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.fetch.sources.listed_files import normalize_name
from headstart.fetch.sources.paths import list_pictures, printable_path, require_folder
from headstart.fetch.sources.records import LocalFile, Rejection, SourceBox, SourceImage, unique_label


@dataclass(frozen=True)
class Annotated:
    """What one entry of an annotation file says of one picture.

    Attributes:
        names: the picture's name, as written; then other forms of it, in which it is looked for next. Empty: the entry
            has none, and its `problem` says so.
        where: the entry's place, such as `export.json: task 7`.
        boxes: in units of `frame`, as in `SourceImage`.
        frame: the annotated size; None: pixels of the upright picture.
        label: of the whole picture.
        problem: why the picture cannot be used; empty: it can.
        is_open: nobody has annotated the picture yet: it is left out, and is no background.
        size: bytes of the picture's file, where that is known; it tells pictures of one name apart.
    """

    names: tuple[str, ...]
    where: str
    boxes: tuple[SourceBox, ...] = ()
    frame: tuple[float, float] | None = None
    label: str | None = None
    problem: str = ""
    is_open: bool = False
    size: int | None = None


class Pictures:
    """The pictures under a folder, to be found by the names that annotation tools write."""

    def __init__(self, key: str, display_folder: str, root: Path) -> None:
        """List the folder that a key of params names.

        Raises:
            UserError: there is no such folder, or no picture in it.
        """
        self.folder = require_folder(key, display_folder, root)
        self.display_folder = display_folder
        self.paths = list_pictures(key, display_folder, self.folder)
        self._by_path = {_normal(path.relative_to(self.folder).as_posix()): path for path in self.paths}
        self._by_name = defaultdict(list)
        self._by_stem = defaultdict(list)
        for path in self.paths:
            self._by_name[_normal(path.name)].append(path)
            self._by_stem[_normal(path.relative_to(self.folder).with_suffix("").as_posix())].append(path)

    def location(self, path: Path) -> str:
        """How the user refers to a picture."""
        return printable_path(Path(self.display_folder) / path.relative_to(self.folder))

    def of_stem(self, stem: str) -> list[Path]:
        """The pictures of that path below the folder, whatever their suffix."""
        return self._by_stem.get(_normal(stem), [])

    def find(self, names: Sequence[str], size: int | None = None) -> Path:
        """The picture that an entry means: by its path below the folder, by an end of it, or by its name alone.

        Raises:
            ValueError: there is none, or several have that name.
        """
        for name in names:
            parts = _normal(name).strip("/").split("/")
            for start in range(max(1, len(parts) - 1)):  # the name alone comes last, for there may be several
                tail = "/".join(parts[start:])
                if tail in self._by_path:
                    return self._by_path[tail]
            alike = self._by_name.get(parts[-1], [])
            if len(alike) > 1 and size is not None:
                alike = [path for path in alike if path.stat().st_size == size] or alike
            if len(alike) > 1:
                both = " and ".join(self.location(path) for path in alike[:2])
                raise ValueError(f"{names[0]!r} may be {both}; keep them in the folders that the annotations name")
            if alike:
                return alike[0]
        raise ValueError(f"no picture {names[0]!r} in {self.display_folder}")


def to_items(entries: Iterable[Annotated], pictures: Pictures, source: str) -> list[SourceImage | Rejection]:
    """Every entry with its picture, in the order of the entries; then the pictures that no entry names.

    Two entries of one picture must agree. A picture without an entry is left out: nobody has annotated it.
    """
    lost: list[SourceImage | Rejection] = []
    found: dict[Path, list[Annotated]] = defaultdict(list)
    for entry in entries:
        if not entry.names:
            lost.append(Rejection(source, entry.where, "annotation", entry.problem))
            continue
        try:
            found[pictures.find(entry.names, entry.size)].append(entry)
        except ValueError as error:
            lost.append(Rejection(source, entry.where, "missing", str(error), ignored=entry.is_open))
    items = [_to_item(path, some, pictures, source) for path, some in found.items()]
    reason = "no annotation names it; left out, for it may show anything"
    left_out = (path for path in pictures.paths if path not in found)
    rest = [Rejection(source, pictures.location(path), "unlabelled", reason, ignored=True) for path in left_out]
    return [*items, *lost, *rest]


def _to_item(path: Path, entries: list[Annotated], pictures: Pictures, source: str) -> SourceImage | Rejection:
    location = pictures.location(path)
    first, *others = [entry for entry in entries if not entry.is_open] or entries
    if first.is_open:
        return Rejection(source, location, "unlabelled", f"{first.where}: {first.problem}", ignored=True)
    if others and not first.problem and not all(agree(first, other) for other in others):
        problem = f"{first.where} and {others[0].where} are of this picture, and differ"
        return Rejection(source, location, "annotation", problem)
    problem = next((f"{entry.where}: {entry.problem}" for entry in (first, *others) if entry.problem), "")
    if problem:
        return Rejection(source, location, "annotation", problem)
    label = first.label or unique_label(first.boxes)
    return SourceImage(location, source, LocalFile(path), label, boxes=first.boxes, frame=first.frame)


def agree(one: Annotated, other: Annotated) -> bool:
    """Whether two entries say the same: boxes equal to a thousandth of a unit, whatever their order."""

    def key(entry: Annotated) -> tuple[Any, ...]:
        corners = ((box.xmin, box.ymin, box.xmax, box.ymax) for box in entry.boxes)
        rounded = [tuple(round(corner, 3) for corner in four) for four in corners]
        return (
            entry.label,
            entry.frame,
            entry.problem,
            sorted(zip(rounded, (b.label for b in entry.boxes), strict=True)),
        )

    return key(one) == key(other)


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", normalize_name(name))


def read_object(value: object, what: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(value, dict):
        return value
    raise ValueError(f"{what} is not an object")


def read_list(value: object, what: str) -> list[Any]:
    """A JSON list.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(value, list):
        return value
    raise ValueError(f"{what} is not a list")


def read_label(value: object) -> str:
    """A label: text, or a whole number as text.

    Raises:
        ValueError: it is something else, or empty.
    """
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise ValueError(f"the label {str(value)[:40]!r} is not a text")
    text = str(value).strip()
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("a label is not Unicode")
    return text
