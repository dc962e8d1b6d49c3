"""Open Images' tables: where they are, what their columns mean, and their traps.

Columns are read by name: a box has XMin, XMax, YMin, YMax in this order, and the tables of the splits differ in their
columns. OriginalMD5 is of another file than the one that is served: it verifies nothing.
"""

import csv
import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.download import large
from headstart.errors import UserError
from headstart.fetch_params import DownloadParams
from headstart.rows import with_names, with_values

CLASSES = "v7/oidv7-class-descriptions-boxable.csv"
HIERARCHY = "2018_04/bbox_labels_600_hierarchy.json"
BOXES = {
    "train": "v6/oidv6-train-annotations-bbox.csv",  # 2.2 GB
    "validation": "v5/validation-annotations-bbox.csv",
    "test": "v5/test-annotations-bbox.csv",
}
LABELS = "v5/{split}-annotations-human-imagelabels-boxable.csv"
IMAGES = {
    "train": "2018_04/train/train-images-boxable-with-rotation.csv",
    "validation": "2018_04/validation/validation-images-with-rotation.csv",
    "test": "2018_04/test/test-images-with-rotation.csv",
}
FLAGS = ("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside")


@dataclass(frozen=True)
class BoxRow:
    """One box: corners as fractions of the stored picture, flags "1", "0" or "-1" (nobody knows)."""

    image: str
    mid: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float
    flags: dict[str, str]


@dataclass(frozen=True)
class About:
    """What is known about a picture. `rotation`: degrees counter-clockwise that make it upright, None: not known."""

    rotation: int | None
    license: str
    author: str
    landing_url: str


@dataclass(frozen=True)
class Vocabulary:
    """The boxable classes: their names by MID, and for each MID those that are below it in the hierarchy."""

    names: dict[str, str]
    below: dict[str, frozenset[str]]

    def mid(self, name: str, key: str) -> str:
        """The MID of a class by its name (case does not matter) or MID.

        Raises:
            UserError: there is no such class; the line says the nearest names.
        """
        if name in self.names:
            return name
        by_name = {known.casefold(): mid for mid, known in self.names.items()}
        if name.casefold() in by_name:
            return by_name[name.casefold()]
        near = difflib.get_close_matches(name.casefold(), by_name, n=3, cutoff=0.5)
        fix = f"did you mean {', '.join(self.names[by_name[match]] for match in near)}?" if near else "no name is near"
        raise UserError(f"open_images.{key}: {name!r}: no such boxable class; {fix}")

    def owners(self, classes: Sequence[str], key: str) -> dict[str, str]:
        """MID -> the class asked for that it belongs to: itself or, of its ancestors, the nearest."""
        mids = [self.mid(name, key) for name in classes]
        found: dict[str, str] = {}
        for mid in sorted(mids, key=lambda mid: -len(self.below.get(mid, ()))):
            found |= dict.fromkeys((mid, *sorted(self.below.get(mid, ()))), self.names[mid])
        return found


def vocabulary(url: str, downloads: DownloadParams) -> Vocabulary:
    """The classes and their hierarchy. The table of some releases has a header line, that of others has none."""
    with large(f"{url}/{CLASSES}", downloads).open(encoding="utf-8", newline="") as file:
        names = {row[0]: row[1] for row in csv.reader(file) if len(row) == 2 and row[0].startswith("/")}
    below: dict[str, frozenset[str]] = {}
    _walk(json.loads(large(f"{url}/{HIERARCHY}", downloads).read_bytes()), below)
    return Vocabulary(names, below)


def _walk(node: Any, below: dict[str, frozenset[str]]) -> frozenset[str]:
    """Subcategories are kinds of a class; parts (a wheel of a car) are none."""
    found: frozenset[str] = frozenset()
    for child in node.get("Subcategory", []):
        found |= {child["LabelName"]} | _walk(child, below)
    below[node["LabelName"]] = found | below.get(node["LabelName"], frozenset())
    return found


def boxes(split: str, url: str, downloads: DownloadParams, mids: Sequence[str]) -> Iterator[BoxRow]:
    """The boxes of these classes in one split, in the order of the table."""
    corners = ("XMin", "YMin", "XMax", "YMax")
    path = large(f"{url}/{BOXES[split]}", downloads)
    table = with_names(path, "LabelName", mids, ("ImageID", "LabelName", *corners, *FLAGS))
    for row in _dicts(table):
        xmin, ymin, xmax, ymax = (float(row[corner]) for corner in corners)
        flags = {flag: row[flag] or "-1" for flag in FLAGS}
        yield BoxRow(row["ImageID"], row["LabelName"], xmin, ymin, xmax, ymax, flags)


def labels(split: str, url: str, downloads: DownloadParams, mids: Sequence[str]) -> Iterator[tuple[str, str, bool]]:
    """What people verified: picture, class, and whether it is there."""
    path = large(f"{url}/{LABELS.format(split=split)}", downloads)
    for row in _dicts(with_names(path, "LabelName", mids, ("ImageID", "LabelName", "Confidence"))):
        yield row["ImageID"], row["LabelName"], float(row["Confidence"]) == 1


def _dicts(table: Any) -> Iterator[dict[str, str]]:
    """Row by row; all of them as dictionaries at once would take many times the memory."""
    for batch in table.to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()


def about(split: str, url: str, downloads: DownloadParams, images: Sequence[str]) -> dict[str, About]:
    """Rotation, licence, author and landing page by picture."""
    columns = ("ImageID", "License", "Author", "OriginalLandingURL", "Rotation")
    table = with_values(large(f"{url}/{IMAGES[split]}", downloads), "ImageID", images, columns)
    return {
        row["ImageID"]: About(
            rotation=int(float(row["Rotation"])) % 360 if row["Rotation"] else None,
            license=row["License"] or "",
            author=row["Author"] or "",
            landing_url=row["OriginalLandingURL"] or "",
        )
        for row in table.to_pylist()
    }
