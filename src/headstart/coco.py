"""The manifest that every stage hands on: COCO JSON, for both tasks."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from headstart.errors import UserError
from headstart.files import write_text
from headstart.section import Split


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Image(_Record):
    """One picture. `file_name` is relative to the repository root; the size is of the upright picture."""

    id: int
    file_name: str
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    sha256: str
    source: str
    label: str | None = None
    split: Split | None = None  # pinned by the source
    group: str | None = None  # pictures that must stay in one split
    copy_of: int | None = None  # id of the original of an augmented copy
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
    """A label and its number, 1-based as COCO's."""

    id: int
    name: str


class Manifest(_Record):
    """Pictures, their labels or boxes, and the names of the labels."""

    images: tuple[Image, ...]
    annotations: tuple[Annotation, ...] = ()
    categories: tuple[Category, ...]

    @model_validator(mode="after")
    def _refers_to_itself(self) -> "Manifest":
        ids = {image.id for image in self.images}
        names = {category.name for category in self.categories}
        numbers = {category.id for category in self.categories}
        if len(ids) != len(self.images):
            raise ValueError("two pictures share an id")
        for image in self.images:
            if image.label is not None and image.label not in names:
                raise ValueError(f"picture {image.file_name} has label {image.label!r}, which is no category")
        for annotation in self.annotations:
            if annotation.image_id not in ids or annotation.category_id not in numbers:
                raise ValueError(f"annotation {annotation.id} names a picture or category that is not there")
        return self

    def labels(self) -> list[str]:
        """Names of the categories in the order of their ids."""
        return [category.name for category in sorted(self.categories, key=lambda c: c.id)]

    def only(self, images: Iterable[Image]) -> "Manifest":
        """The same manifest with these pictures alone, and their annotations."""
        kept = tuple(images)
        ids = {image.id for image in kept}
        return Manifest(
            images=kept,
            annotations=tuple(a for a in self.annotations if a.image_id in ids),
            categories=self.categories,
        )


def categories(names: Iterable[str]) -> tuple[Category, ...]:
    """Categories for these labels, sorted by name, numbered from 1."""
    return tuple(Category(id=number, name=name) for number, name in enumerate(sorted(set(names)), start=1))


def read(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        UserError: the file is missing or is no manifest of ours.
    """
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that writes it: dvc repro") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {where}: {first['msg']}; run `dvc repro` to make it anew") from None


def write(manifest: Manifest, path: Path) -> None:
    """Write a manifest, one picture a line so that a diff can be read. Absent fields are left out."""
    data = manifest.model_dump(exclude_none=True)
    lines = ["{"]
    for key in ("images", "annotations", "categories"):
        rows = [json.dumps(row, ensure_ascii=False) for row in data[key]]
        body = ",\n".join(rows)
        lines.append(f'"{key}": [\n{body}\n]{"," if key != "categories" else ""}')
    lines.append("}\n")
    write_text(path, "\n".join(lines))
