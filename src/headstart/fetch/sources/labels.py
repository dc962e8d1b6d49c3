"""Labels and groups of all sources in one spelling: Unicode NFC, without spaces around them."""

import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from headstart.base.errors import list_some
from headstart.fetch.sources.records import Rejection, SourceImage


def normalize_label(label: str) -> str:
    """A label as it is compared: accents composed (a Mac writes them as letters of their own), outer spaces removed."""
    return unicodedata.normalize("NFC", label).strip()


def normalize_labels(items: Iterable[SourceImage | Rejection]) -> list[SourceImage | Rejection]:
    """The same items with normalized labels and groups; a picture with a box whose label is empty is rejected."""
    return [item if isinstance(item, Rejection) else _normalize(item) for item in items]


def _normalize(item: SourceImage) -> SourceImage | Rejection:
    boxes = tuple(replace(box, label=normalize_label(box.label)) for box in item.boxes)
    nameless = next((box for box in boxes if not box.label), None)
    if nameless is not None:
        where = f"{nameless.where}: " if nameless.where else ""
        return Rejection(item.source, item.location, "box", f"{where}a box without a label; name what it shows")
    label = normalize_label(item.label) if item.label is not None else None
    group = unicodedata.normalize("NFC", item.group) if item.group else None
    return replace(item, label=label or None, boxes=boxes, group=group)


def note_similar_labels(before: Sequence[SourceImage | Rejection], after: Sequence[SourceImage | Rejection]) -> None:
    """One line on stderr where labels lost spaces, and one where labels differ in upper and lower case alone."""
    written = {unicodedata.normalize("NFC", label) for label in _labels(before)}
    spaced = sorted(label for label in written if label != label.strip())
    if spaced:
        names = list_some([repr(label) for label in spaced], 5)
        print(f"fetch: spaces around labels are left out: {names}", file=sys.stderr)
    spellings: dict[str, set[str]] = defaultdict(set)
    for label in _labels(after):
        spellings[label.casefold()].add(label)
    alike = [" and ".join(map(repr, sorted(names))) for _, names in sorted(spellings.items()) if len(names) > 1]
    if alike:
        print(
            f"fetch: labels that differ in upper and lower case alone stay apart: {list_some(alike, 5)}; "
            "write them alike if they are one",
            file=sys.stderr,
        )


def _labels(items: Iterable[SourceImage | Rejection]) -> set[str]:
    pictures = [item for item in items if isinstance(item, SourceImage)]
    labels = {picture.label for picture in pictures if picture.label is not None}
    return labels | {box.label for picture in pictures for box in picture.boxes}
