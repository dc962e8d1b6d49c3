"""The files that fetch writes about its pictures: the manifest, CSV tables and metrics."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.base.files import csv_text, write_text
from headstart.base.manifest import Annotation, Image, Manifest, make_categories
from headstart.fetch.boxes import PixelBoxes
from headstart.fetch.file_order import file_order
from headstart.fetch.sources.records import Rejection, SourceImage

FETCH_FOLDER = Path("stages/fetch")


@dataclass(frozen=True)
class StoredImage:
    """A picture that passed validation and is stored under images/."""

    source_image: SourceImage
    file_name: str  # relative to the repository root
    width: int
    height: int
    sha256: str
    conversions: tuple[str, ...]
    pixel_boxes: PixelBoxes


def write_csv(path: Path, columns: tuple[str, ...], records: Sequence[object]) -> None:
    """A CSV file with these attributes of these objects; None is an empty cell."""
    write_text(path, csv_text(columns, ([getattr(record, column) for column in columns] for record in records)))


def build_manifest(stored: list[StoredImage], *, boxes: bool) -> Manifest:
    """The manifest: ids follow the order of the sources, so the same pictures give the same bytes.

    Args:
        stored: the pictures.
        boxes: the task learns from boxes, which have the labels; else pictures have their label.
    """
    names = {item.source_image.label for item in stored if not boxes and item.source_image.label is not None}
    categories = make_categories(names | {box.label for item in stored for box in item.pixel_boxes.boxes})
    id_of_name = {category.name: category.id for category in categories}
    images: list[Image] = []
    annotations: list[Annotation] = []
    places = file_order([item.source_image for item in stored])
    for image_id, (item, place) in enumerate(zip(stored, places, strict=True), start=1):
        images.append(_manifest_image(image_id, item, None if boxes else item.source_image.label, place))
        for box in item.pixel_boxes.boxes:
            annotation = Annotation(
                id=len(annotations) + 1,
                image_id=image_id,
                category_id=id_of_name[box.label],
                bbox=box.bbox,
                area=round(box.bbox[2] * box.bbox[3], 3),
                iscrowd=int(box.crowd),
            )
            annotations.append(annotation)
    return Manifest(images=tuple(images), annotations=tuple(annotations), categories=categories)


def _manifest_image(image_id: int, item: StoredImage, label: str | None, place: int) -> Image:
    return Image(
        id=image_id,
        file_name=item.file_name,
        width=item.width,
        height=item.height,
        sha256=item.sha256,
        source=item.source_image.source,
        label=label,
        split=item.source_image.split,
        group=item.source_image.group,
        confidence=item.source_image.confidence,
        columns=None if item.source_image.columns is None else dict(item.source_image.columns),
        place=place,
        license=item.source_image.license,
        author=item.source_image.author,
        landing_url=item.source_image.landing_url,
    )


def fetch_metrics(stored: list[StoredImage], rejections: list[Rejection], *, boxes: bool) -> dict[str, int]:
    """Flat counts for DVC and MLflow; `label.…` counts boxes if the task learns from `boxes`, else pictures."""
    failed = Counter(item.kind for item in rejections if not item.ignored)
    conversions = Counter(conversion for item in stored for conversion in item.conversions)
    if boxes:
        labels = Counter(box.label for item in stored for box in item.pixel_boxes.boxes)
    else:
        labels = Counter(item.source_image.label for item in stored if item.source_image.label is not None)
    return {
        "pictures": len(stored),
        "failed": failed.total(),
        "ignored": len(rejections) - failed.total(),
        "identical": len(stored) - len({item.sha256 for item in stored}),
        "converted": sum(bool(item.conversions) for item in stored),
        **({"background": sum(not item.pixel_boxes.boxes for item in stored)} if boxes else {}),
        "boxes": sum(len(item.pixel_boxes.boxes) for item in stored),
        "boxes_clipped": sum(item.pixel_boxes.clipped for item in stored),
        **{f"label.{label}": count for label, count in sorted(labels.items())},
        **{f"converted.{conversion}": count for conversion, count in sorted(conversions.items())},
        **{f"failed.{kind}": count for kind, count in sorted(failed.items())},
    }


def format_summary(metrics: dict[str, int]) -> str:
    """The stage's last line: how many of each, and the file that lists what was left out."""

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
        line += f"; {metrics['failed']:,} rejected{of('failed')} and {metrics['ignored']:,} ignored: "
        line += f"{FETCH_FOLDER}/failed.csv"
    return line
