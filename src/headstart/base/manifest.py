"""The manifest: COCO JSON that each stage passes to the next, for both tasks."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from headstart.base.errors import UserError
from headstart.base.files import write_text

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Image(_Record):
    """One picture. `file_name` is relative to the repository root; width and height are of the upright picture."""

    id: int
    file_name: str
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    sha256: str
    source: str
    label: str | None = None
    split: Split | None = None  # pinned by the source
    group: str | None = None  # pictures that must stay in one split
    unit: str | None = None  # name of the group joined with its near-duplicates, in the split's manifests
    confidence: Annotated[float, Field(gt=0, le=1)] | None = None  # the annotator's, that the label is right
    columns: dict[str, str] | None = None  # further columns of the table it is from
    place: int | None = None  # in the order of its source's file names, without folders
    copy_of: int | None = None  # id of the original of an augmented copy
    tile: tuple[int, int] | None = None  # left and top of this part of the picture in the file
    tile_of: int | None = None  # id of the picture that it is a part of
    license: str | None = None
    author: str | None = None
    landing_url: str | None = None


class Annotation(_Record):
    """One box: COCO `[x, y, width, height]` in pixels of the upright picture."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: int = 0


class Category(_Record):
    """A label and its id, from 1 as in COCO."""

    id: int
    name: str


class Manifest(_Record):
    """Pictures with their labels or boxes, and the categories (the labels' names and ids)."""

    images: tuple[Image, ...]
    annotations: tuple[Annotation, ...] = ()
    categories: tuple[Category, ...]

    @model_validator(mode="after")
    def _check_references(self) -> "Manifest":
        ids = {image.id for image in self.images}
        names = {category.name for category in self.categories}
        category_ids = {category.id for category in self.categories}
        if len(ids) != len(self.images):
            raise ValueError("two pictures share an id")
        for image in self.images:
            if image.label is not None and image.label not in names:
                raise ValueError(f"picture {image.file_name} has label {image.label!r}, which is no category")
        for annotation in self.annotations:
            if annotation.image_id not in ids or annotation.category_id not in category_ids:
                raise ValueError(f"annotation {annotation.id} refers to a picture or category that does not exist")
        return self

    def labels(self) -> list[str]:
        """Names of the categories, in the order of their ids."""
        return [category.name for category in sorted(self.categories, key=lambda c: c.id)]

    def label_numbers(self) -> dict[int, int]:
        """Category id -> index of its label in `labels()`; the keys are in that order."""
        return {category_id: index for index, category_id in enumerate(sorted(c.id for c in self.categories))}

    def annotations_by_image(self) -> dict[int, list[Annotation]]:
        """The annotations of each picture, by its id, in one pass over all of them."""
        grouped: dict[int, list[Annotation]] = {image.id: [] for image in self.images}
        for annotation in self.annotations:
            grouped[annotation.image_id].append(annotation)
        return grouped

    def subset(self, images: Iterable[Image]) -> "Manifest":
        """A manifest of these pictures and their annotations, with all categories."""
        chosen = tuple(images)
        ids = {image.id for image in chosen}
        return Manifest(
            images=chosen,
            annotations=tuple(a for a in self.annotations if a.image_id in ids),
            categories=self.categories,
        )


def xywh_to_xyxy(bbox: Sequence[float]) -> tuple[float, float, float, float]:
    """COCO's `[x, y, width, height]` as `(xmin, ymin, xmax, ymax)`."""
    x, y, width, height = bbox
    return x, y, x + width, y + height


def xyxy_to_xywh(corners: Sequence[float]) -> tuple[float, float, float, float]:
    """`(xmin, ymin, xmax, ymax)` as COCO's `[x, y, width, height]`, not rounded."""
    x1, y1, x2, y2 = corners
    return x1, y1, x2 - x1, y2 - y1


def make_categories(names: Iterable[str]) -> tuple[Category, ...]:
    """Categories for these labels: sorted by name, ids from 1."""
    return tuple(Category(id=number, name=name) for number, name in enumerate(sorted(set(names)), start=1))


def count_sources(images: Iterable[Image]) -> list[tuple[str, int]]:
    """Pictures by source, the most frequent first."""
    return Counter(image.source for image in images).most_common()


def count_licenses(images: Iterable[Image]) -> list[tuple[str, int]]:
    """Pictures by licence, the most frequent first; those without one as `not stated`."""
    return Counter(image.license or "not stated" for image in images).most_common()


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        UserError: the file is missing, or is not a manifest that headstart wrote.
    """
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that writes it: dvc repro") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = ": ".join(filter(None, [where, first["msg"]]))
        raise UserError(f"{path}: {problem}; run `dvc repro` to make it anew") from None


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest, one record a line so that a diff can be read. Absent fields are left out."""
    data = manifest.model_dump(exclude_none=True)
    lines = ["{"]
    for key in ("images", "annotations", "categories"):
        rows = [json.dumps(row, ensure_ascii=False) for row in data[key]]
        body = ",\n".join(rows)
        lines.append(f'"{key}": [\n{body}\n]{"," if key != "categories" else ""}')
    lines.append("}\n")
    write_text(path, "\n".join(lines))
