"""What fetch hands on about its pictures: the manifest, the tables and the numbers."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart import coco, files
from headstart.boxes import Placed
from headstart.sources import Failed, Wanted

FOLDER = Path("stages/fetch")


@dataclass(frozen=True)
class Stored:
    """A picture that went through the door and lies under images/."""

    wanted: Wanted
    file_name: str  # relative to the repository root
    width: int
    height: int
    sha256: str
    changes: tuple[str, ...]
    placed: Placed


def write_table(path: Path, columns: tuple[str, ...], rows: Sequence[object]) -> None:
    """A CSV file with these attributes of these objects; None is an empty cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([getattr(row, column) for column in columns] for row in rows)
    files.write_text(path, buffer.getvalue())


def manifest(stored: list[Stored], *, labels: bool = True) -> coco.Manifest:
    """The manifest: numbers follow the order of the sources, so the same pictures give the same bytes.

    Pictures have their label with `labels` alone; for a detector the boxes have them.
    """
    names = {item.wanted.label for item in stored if labels and item.wanted.label is not None}
    categories = coco.categories(names | {label for item in stored for label, _, _ in item.placed.boxes})
    number_of = {category.name: category.id for category in categories}
    images: list[coco.Image] = []
    annotations: list[coco.Annotation] = []
    for number, item in enumerate(stored, start=1):
        images.append(_image(number, item, item.wanted.label if labels else None))
        for label, bbox, crowd in item.placed.boxes:
            annotation = coco.Annotation(
                id=len(annotations) + 1,
                image_id=number,
                category_id=number_of[label],
                bbox=bbox,
                area=round(bbox[2] * bbox[3], 3),
                iscrowd=int(crowd),
            )
            annotations.append(annotation)
    return coco.Manifest(images=tuple(images), annotations=tuple(annotations), categories=categories)


def _image(number: int, item: Stored, label: str | None) -> coco.Image:
    return coco.Image(
        id=number,
        file_name=item.file_name,
        width=item.width,
        height=item.height,
        sha256=item.sha256,
        source=item.wanted.source,
        label=label,
        split=item.wanted.split,
        group=item.wanted.group,
        license=item.wanted.license,
        author=item.wanted.author,
        landing_url=item.wanted.landing_url,
    )


def metrics(stored: list[Stored], failed: list[Failed], *, labels: bool = True) -> dict[str, int]:
    """Flat numbers for DVC and MLflow: how many of each; `label.` counts pictures, or without `labels` boxes."""
    lost = Counter(item.kind for item in failed if not item.ignored)
    changes = Counter(change for item in stored for change in item.changes)
    if labels:
        counts = Counter(item.wanted.label for item in stored if item.wanted.label is not None)
    else:
        counts = Counter(label for item in stored for label, _, _ in item.placed.boxes)
    return {
        "pictures": len(stored),
        "failed": lost.total(),
        "ignored": len(failed) - lost.total(),
        "identical": len(stored) - len({item.sha256 for item in stored}),
        "converted": sum(bool(item.changes) for item in stored),
        **({} if labels else {"background": sum(not item.placed.boxes for item in stored)}),
        "boxes": sum(len(item.placed.boxes) for item in stored),
        "boxes_clipped": sum(item.placed.clipped for item in stored),
        "boxes_dropped": sum(len(item.placed.dropped) for item in stored),
        **{f"label.{label}": count for label, count in sorted(counts.items())},
        **{f"converted.{change}": count for change, count in sorted(changes.items())},
        **{f"failed.{kind}": count for kind, count in sorted(lost.items())},
    }


def summary(metrics: dict[str, int]) -> str:
    """What a person wants to know: how many of each, and where the rest is."""

    def of(name: str) -> str:
        parts = [f"{key.partition('.')[2]} {count:,}" for key, count in metrics.items() if key.startswith(f"{name}.")]
        return f" ({', '.join(parts)})" if parts else ""

    line = f"fetch: {metrics['pictures']:,} pictures"
    if "background" in metrics:
        line += f" ({metrics['background']:,} of them background), {metrics['boxes']:,} boxes{of('label')}"
    else:
        line += of("label") + (f", {metrics['boxes']:,} boxes" if metrics["boxes"] else "")
    line += f"; {metrics['converted']:,} converted{of('converted')}; {metrics['identical']:,} identical to another"
    if metrics["failed"] or metrics["ignored"]:
        line += (
            f"; {metrics['failed']:,} rejected{of('failed')} and {metrics['ignored']:,} ignored: {FOLDER}/failed.csv"
        )
    return line
