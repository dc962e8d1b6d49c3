"""Open Images' tables: where they are, what their columns mean, and their pitfalls.

Columns are read by name: a box has XMin, XMax, YMin, YMax in this order, and the tables of the splits differ in their
columns. OriginalMD5 is the hash of another file than the one that is served: it verifies nothing.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.base.errors import UserError, did_you_mean
from headstart.fetch.csv_filter import select_by_mid, select_by_value
from headstart.fetch.http.download import download_file
from headstart.params.fetch import DownloadParams

CLASSES_CSV = "v7/oidv7-class-descriptions-boxable.csv"
HIERARCHY_JSON = "2018_04/bbox_labels_600_hierarchy.json"
BOXES_CSV = {
    "train": "v6/oidv6-train-annotations-bbox.csv",  # 2.2 GB
    "validation": "v5/validation-annotations-bbox.csv",
    "test": "v5/test-annotations-bbox.csv",
}
LABELS_CSV = "v5/{split}-annotations-human-imagelabels-boxable.csv"
IMAGES_CSV = {
    "train": "2018_04/train/train-images-boxable-with-rotation.csv",
    "validation": "2018_04/validation/validation-images-with-rotation.csv",
    "test": "2018_04/test/test-images-with-rotation.csv",
}
CORNER_COLUMNS = ("XMin", "YMin", "XMax", "YMax")
BOX_FLAGS = ("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside")


@dataclass(frozen=True)
class BoxRow:
    """One box: corners as fractions of the stored picture, flags "1", "0" or "-1" (unknown)."""

    image_id: str
    mid: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float
    flags: dict[str, str]


@dataclass(frozen=True)
class ImageInfo:
    """Metadata of a picture. `rotation`: degrees counter-clockwise that make it upright, None: unknown."""

    rotation: int | None
    license: str
    author: str
    landing_url: str


@dataclass(frozen=True)
class ClassHierarchy:
    """The boxable classes: their names by MID, and for each MID those that are below it in the hierarchy."""

    names: dict[str, str]
    descendants: dict[str, frozenset[str]]

    def find_mid(self, name: str, key: str) -> str:
        """The MID of a class by its name (case does not matter) or MID.

        Raises:
            UserError: there is no such class; the line suggests similar names.
        """
        if name in self.names:
            return name
        mid_of_name = {known.casefold(): mid for mid, known in self.names.items()}
        if name.casefold() in mid_of_name:
            return mid_of_name[name.casefold()]
        fix = did_you_mean(name, self.names.values(), "no name is similar", count=3, cutoff=0.5, normalize=str.casefold)
        raise UserError(f"open_images.{key}: {name!r}: no such boxable class; {fix}")

    def requested_classes(self, classes: Sequence[str], key: str) -> dict[str, str]:
        """MID -> the requested class that it belongs to: itself or, of its ancestors, the nearest."""
        mids = [self.find_mid(name, key) for name in classes]
        requested: dict[str, str] = {}
        for mid in sorted(mids, key=lambda mid: -len(self.descendants.get(mid, ()))):
            requested |= dict.fromkeys((mid, *sorted(self.descendants.get(mid, ()))), self.names[mid])
        return requested


def read_hierarchy(url: str, downloads: DownloadParams) -> ClassHierarchy:
    """The classes and their hierarchy. The table of some releases has a header line, that of others has none."""
    with download_file(f"{url}/{CLASSES_CSV}", downloads).open(encoding="utf-8", newline="") as file:
        names = {row[0]: row[1] for row in csv.reader(file) if len(row) == 2 and row[0].startswith("/")}
    descendants: dict[str, frozenset[str]] = {}
    _collect_descendants(json.loads(download_file(f"{url}/{HIERARCHY_JSON}", downloads).read_bytes()), descendants)
    return ClassHierarchy(names, descendants)


def _collect_descendants(node: Any, descendants: dict[str, frozenset[str]]) -> frozenset[str]:
    """Fill `descendants` from a node down: subcategories are kinds of a class, parts (a wheel of a car) are not."""
    below: frozenset[str] = frozenset()
    for child in node.get("Subcategory", []):
        below |= {child["LabelName"]} | _collect_descendants(child, descendants)
    descendants[node["LabelName"]] = below | descendants.get(node["LabelName"], frozenset())
    return below


def read_boxes(split: str, url: str, downloads: DownloadParams, mids: Sequence[str]) -> Iterator[BoxRow]:
    """The boxes of these classes in one split, in the order of the table."""
    path = download_file(f"{url}/{BOXES_CSV[split]}", downloads)
    columns = ("ImageID", "LabelName", *CORNER_COLUMNS)
    for row in _iter_rows(select_by_mid(path, "LabelName", mids, columns, optional=BOX_FLAGS)):
        xmin, ymin, xmax, ymax = (float(row[column]) for column in CORNER_COLUMNS)
        flags = {flag: row[flag] or "-1" for flag in BOX_FLAGS}
        yield BoxRow(row["ImageID"], row["LabelName"], xmin, ymin, xmax, ymax, flags)


def read_labels(
    split: str, url: str, downloads: DownloadParams, mids: Sequence[str]
) -> Iterator[tuple[str, str, bool]]:
    """The labels of these classes that people verified in one split: image id, MID, whether it is present."""
    path = download_file(f"{url}/{LABELS_CSV.format(split=split)}", downloads)
    for row in _iter_rows(select_by_mid(path, "LabelName", mids, ("ImageID", "LabelName", "Confidence"))):
        yield row["ImageID"], row["LabelName"], float(row["Confidence"]) == 1


def _iter_rows(table: Any) -> Iterator[dict[str, str]]:
    """Row by row; all of them as dictionaries at once would take many times the memory."""
    for batch in table.to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()


def read_image_info(split: str, url: str, downloads: DownloadParams, images: Sequence[str]) -> dict[str, ImageInfo]:
    """Rotation, licence, author and landing page by image id."""
    path = download_file(f"{url}/{IMAGES_CSV[split]}", downloads)
    columns = ("ImageID", "License", "Author", "OriginalLandingURL", "Rotation")
    return {
        row["ImageID"]: ImageInfo(
            rotation=int(float(row["Rotation"])) % 360 if row["Rotation"] else None,
            license=row["License"] or "",
            author=row["Author"] or "",
            landing_url=row["OriginalLandingURL"] or "",
        )
        for row in select_by_value(path, "ImageID", images, columns).to_pylist()
    }
