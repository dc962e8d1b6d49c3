"""Which label file of a YOLO set belongs to which picture."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headstart.base.manifest import Split

_LABELS = {"Images": "Labels", "IMAGES": "LABELS"}


@dataclass
class YoloPicture:
    """One picture of a YOLO set.

    Attributes:
        path: the picture.
        split: the one it is pinned to.
        folders: where its label file may lie.
        labels: its label files: none, one, or several that contradict each other.
        sharing: other pictures that have the same label file.
        astray: label files of no picture, elsewhere, that have its name, where it has none of its own.
    """

    path: Path
    split: Split | None
    folders: tuple[Path, ...]
    labels: list[Path] = field(default_factory=list)
    sharing: list[Path] = field(default_factory=list)
    astray: list[Path] = field(default_factory=list)


def labels_folder(inside: Path) -> Path:
    """The folder of a picture with its last `images` replaced by `labels`, as Ultralytics finds label files.

    `Images` becomes `Labels`.
    """
    parts = list(inside.parts[:-1])
    folded = [part.lower() for part in parts]
    if "images" in folded:
        place = len(parts) - 1 - folded[::-1].index("images")
        parts[place] = _LABELS.get(parts[place], "labels")
    return Path(*parts)


def match_labels(pictures: Sequence[YoloPicture], files: Iterable[Path], config_path: Path) -> list[Path]:
    """Give each picture its label file, of the same name but for the suffix.

    Names that differ in case or in Unicode form alone are the same, where no picture has the file's very name.

    Args:
        pictures: their `labels`, `sharing` and `astray` are filled in.
        files: the files where labels lie; those that do not end in .txt, and classes.txt, are no labels.
        config_path: the file of names, which may lie among them.

    Returns:
        The text files of no picture, sorted.
    """
    labels = sorted(
        path
        for path in set(files)
        if path.suffix.lower() == ".txt" and path != config_path and path.name.lower() != "classes.txt"
    )
    exact, folded = defaultdict(list), defaultdict(list)
    for label in labels:
        exact[label.parent, label.stem].append(label)
        folded[label.parent, _folded(label.stem)].append(label)
    for picture in pictures:
        picture.labels = [label for folder in picture.folders for label in exact.get((folder, picture.path.stem), ())]
    owned = {label for picture in pictures for label in picture.labels}
    for picture in pictures:
        if not picture.labels:
            similar = (label for f in picture.folders for label in folded.get((f, _folded(picture.path.stem)), ()))
            picture.labels = [label for label in similar if label not in owned]
    owners: dict[Path, list[YoloPicture]] = defaultdict(list)
    for picture in pictures:
        for label in picture.labels:
            owners[label].append(picture)
    for sharing in owners.values():
        for picture in sharing:
            picture.sharing += [other.path for other in sharing if other is not picture]
    unused = [label for label in labels if label not in owners]
    _note_astray(pictures, unused)
    return unused


def _note_astray(pictures: Sequence[YoloPicture], unused: Sequence[Path]) -> None:
    """Fill in `astray`: a picture whose label file lies elsewhere would be taught as background."""
    by_stem = defaultdict(list)
    for label in unused:
        by_stem[_folded(label.stem)].append(label)
    for picture in pictures:
        if not picture.labels:
            named = [*by_stem[_folded(picture.path.stem)], *by_stem[_folded(picture.path.name)]]  # also 1.jpg.txt
            picture.astray = [label for label in named if holds_rows(label)]


def holds_rows(path: Path) -> bool:
    """Whether a text file of no picture looks like labels: it is empty, or begins with a number."""
    try:
        words = path.read_text(encoding="utf-8-sig").split(maxsplit=1)
    except (OSError, UnicodeDecodeError):
        return True
    return not words or words[0].replace(".", "", 1).isdigit()


def _folded(stem: str) -> str:
    return unicodedata.normalize("NFC", stem).casefold()
