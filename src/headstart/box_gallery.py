"""Misses, false alarms and best hits as small pictures with their boxes: where a detector's faults are found by eye."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart import coco
from headstart.coco import Annotation, Manifest
from headstart.curves import table
from headstart.detections import Detection
from headstart.draw import Mark, draw
from headstart.files import write_bytes, write_text
from headstart.gallery import jpeg, opened, slug
from headstart.outcomes import Outcomes

_SIDE = 400  # pixels of the longest side
KINDS = ("miss", "false alarm", "hit")


@dataclass(frozen=True)
class Case:
    """One box that was missed, found where it is not, or found; None where there is no such label or confidence."""

    kind: str  # of KINDS
    image: coco.Image
    label: str | None
    predicted: str | None
    confidence: float | None
    jpeg: bytes


@dataclass(frozen=True)
class _Box:
    weight: float  # the largest comes first in its kind
    image: coco.Image
    index: int | None  # of the box found
    truth: Annotation | None


def find(
    root: Path, manifest: Manifest, found: Sequence[Detection], seen: Outcomes, threshold: float, most: int
) -> list[Case]:
    """A third of `most` for each kind: the largest misses, the surest false alarms, the surest hits.

    A picture stands once among each kind. Wrong labels count as false alarms. File names are relative to `root`.

    Raises:
        UserError: a picture file is missing.
    """
    names = {category.id: category.name for category in manifest.categories}
    cases = []
    for number, kind in enumerate(KINDS):
        share = (most + len(KINDS) - 1 - number) // len(KINDS)
        for box in _first(_boxes(kind, manifest, found, seen), share):
            mine = [
                (index, one)
                for index, one in enumerate(found)
                if one["image_id"] == box.image.id and one["score"] >= threshold
            ]
            marks = _marks(box, manifest, mine, names)
            said = found[box.index] if box.index is not None else None
            cases.append(
                Case(
                    kind=kind,
                    image=box.image,
                    label=names[box.truth.category_id] if box.truth else None,
                    predicted=names[said["category_id"]] if said else None,
                    confidence=said["score"] if said else None,
                    jpeg=jpeg(draw(opened(root / box.image.file_name), marks, _SIDE)),
                )
            )
    return cases


def _boxes(kind: str, manifest: Manifest, found: Sequence[Detection], seen: Outcomes) -> list[_Box]:
    image = {one.id: one for one in manifest.images}
    truth = {one.id: one for one in manifest.annotations}
    if kind == "miss":
        missed = [truth[number] for number in seen.misses]
        shares = [one.area / (image[one.image_id].width * image[one.image_id].height) for one in missed]
        return [_Box(share, image[a.image_id], None, a) for share, a in zip(shares, missed, strict=True)]
    of_kind: Iterable[tuple[int, int | None]]
    of_kind = seen.hits if kind == "hit" else (*seen.mislabelled, *((index, None) for index in seen.false_alarms))
    return [
        _Box(found[i]["score"], image[found[i]["image_id"]], i, None if number is None else truth[number])
        for i, number in of_kind
    ]


def _first(boxes: Sequence[_Box], most: int) -> list[_Box]:
    """The weightiest ones, one a picture. Ties go by file name, so that the order of the pictures changes nothing."""
    first: dict[int, _Box] = {}
    for box in sorted(boxes, key=lambda box: (-box.weight, box.image.file_name)):
        first.setdefault(box.image.id, box)
    return list(first.values())[:most]


def _marks(box: _Box, manifest: Manifest, found: Sequence[tuple[int, Detection]], names: dict[int, str]) -> list[Mark]:
    """All boxes of the picture, those of the case first. The labels of true boxes are told where they matter."""
    marks = [
        Mark(corners(one["bbox"]), f"{names[one['category_id']]} {one['score']:.2f}", strong=index == box.index)
        for index, one in found
    ]
    for one in manifest.annotations:
        if one.image_id == box.image.id:
            mine = box.truth is not None and one.id == box.truth.id
            text = f"{names[one.category_id]} crowd" if one.iscrowd else names[one.category_id] if mine else ""
            marks.append(Mark(corners(one.bbox), text, true=True, strong=mine and box.index is None))
    return sorted(marks, key=lambda mark: not mark.strong)


def corners(bbox: Sequence[float]) -> tuple[float, float, float, float]:
    """COCO's `[x, y, width, height]` as xmin, ymin, xmax, ymax."""
    x, y, width, height = bbox
    return x, y, x + width, y + height


def write(folder: Path, cases: Sequence[Case]) -> None:
    """The pictures, whose names say what happened, and cases.csv with the same for programs."""
    rows = []
    for rank, case in enumerate(cases, start=1):
        what = " as ".join(filter(None, (case.label, case.predicted if case.predicted != case.label else None)))
        name = f"{rank:03d}-{slug(f'{case.kind} {what}')}.jpg"
        write_bytes(folder / name, case.jpeg)
        confidence = None if case.confidence is None else round(case.confidence, 6)
        rows.append((name, case.kind, case.image.file_name, case.label, case.predicted, confidence))
    header = ("thumbnail", "kind", "file_name", "label", "predicted", "confidence")
    write_text(folder / "cases.csv", table(header, rows))
