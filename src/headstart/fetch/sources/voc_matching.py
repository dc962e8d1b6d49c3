"""Which annotation file belongs to which picture, where each has a file of its own (Pascal VOC)."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple


class Matches(NamedTuple):
    """Which annotation is whose.

    Attributes:
        annotation_of: picture -> its annotation.
        doubts: picture -> why it is not known which annotation is its own.
        unclaimed: annotations that are no picture's.
    """

    annotation_of: dict[Path, Path]
    doubts: dict[Path, str]
    unclaimed: list[Path]


def match_annotations(pictures: Sequence[Path], annotations: Sequence[Path], file_names: Sequence[str]) -> Matches:
    """Give each annotation to one picture at most: by place, by name, or by the file name that is written in it.

    First an annotation at the same path is a picture's own. A name counts only where one picture and one annotation in
    the whole set have it (`b/1.jpg` must not get the boxes of `a/1.xml`), and a file name that is written in an
    annotation likewise: labelImg does not update it when files are renamed. Letters may be composed otherwise (a Mac
    writes an accent as a letter of its own), and beyond the same path they may be of the other case.

    Args:
        pictures: paths relative to the folder of pictures.
        annotations: paths relative to the folder of annotations.
        file_names: for each annotation, the last part of the picture's file name that is written in it, or "".
    """
    matched: dict[Path, Path] = {}
    doubts: dict[Path, str] = {}
    doubtful: set[Path] = set()
    written = dict(zip(annotations, file_names, strict=True))
    steps: tuple[tuple[Callable[[Path], str], Callable[[Path], str]], ...] = (
        (_place, _place),
        (_stem, _stem),
        (lambda picture: _folded(picture.name), lambda annotation: _folded(written[annotation])),
    )
    for picture_key, annotation_key in steps:
        claimed = set(matched.values())
        annotations_of, pictures_of = _group(annotations, annotation_key), _group(pictures, picture_key)
        for picture in pictures:
            key = picture_key(picture)
            rivals = annotations_of.get(key, [])
            free = [annotation for annotation in rivals if annotation not in claimed]
            if picture in matched or picture in doubts or not key or not free:
                continue
            if len(rivals) == 1 and len(pictures_of[key]) == 1:
                matched[picture] = rivals[0]
            else:
                others = [path for path in pictures_of[key] if path != picture] or rivals[1:]
                doubtful.update(free)
                doubts[picture] = f"{free[0].as_posix()} may be its annotation, but there is {others[0].as_posix()} too"
    claimed = {*matched.values(), *doubtful}
    return Matches(matched, doubts, [annotation for annotation in annotations if annotation not in claimed])


def _group(paths: Sequence[Path], key: Callable[[Path], str]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[key(path)].append(path)
    return groups


def _place(path: Path) -> str:
    return unicodedata.normalize("NFC", path.with_suffix("").as_posix())


def _stem(path: Path) -> str:
    return _folded(path.stem)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
