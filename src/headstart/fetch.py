"""fetch: everything that comes from outside becomes pictures on disk and one manifest."""

import csv
import io
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from headstart import coco, files, progress
from headstart.boxes import Placed, place
from headstart.door import MAX_BYTES, PictureError, admit, pil_set_up
from headstart.errors import UserError
from headstart.fetch_params import FetchParams
from headstart.params import Params
from headstart.sources import Failed, Local, Wanted, collect

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


def fetch(params: Params, root: Path) -> None:
    """Run the stage: sources -> stages/fetch/{images/,annotations.json,failed.csv,metrics.json}.

    Args:
        params: all of params.yaml.
        root: the repository root; every path in params is relative to it.

    Raises:
        UserError: a source is not in order, more pictures than `fetch.max_failed` were rejected, or what is left
            has fewer than two labels.
    """
    folder = root / FOLDER
    shutil.rmtree(folder / "images", ignore_errors=True)
    (folder / "annotations.json").unlink(missing_ok=True)  # its presence means that the stage is complete
    found = collect(params.fetch, root)
    needs_label = params.task == "classify"
    done = list(_through_the_door(found, needs_label=needs_label, root=root))
    stored = [item for item in done if isinstance(item, Stored)]
    failed = [item for item in done if isinstance(item, Failed)]
    failed += [box for item in stored for box in _dropped_boxes(item)]
    _write_failed(folder / "failed.csv", failed)
    _check(params.fetch, stored, failed, needs_label=needs_label)
    metrics = _metrics(stored, failed)
    files.write_json(folder / "metrics.json", metrics)
    coco.write(_manifest(stored), folder / "annotations.json")
    print(_summary(metrics))


def _through_the_door(found: list[Wanted | Failed], *, needs_label: bool, root: Path) -> Iterator[Stored | Failed]:
    """Every picture decoded, made upright and stored, in the order of the sources. PIL decodes without the GIL."""

    def through(item: Wanted | Failed) -> Stored | Failed:
        return item if isinstance(item, Failed) else _store(item, needs_label=needs_label, root=root)

    with pil_set_up(), ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from progress.track(pool.map(through, found), "fetch: pictures", len(found))


def _store(wanted: Wanted, *, needs_label: bool, root: Path) -> Stored | Failed:
    if needs_label and wanted.label is None:
        return Failed(wanted.source, wanted.location, "no_label", _why_no_label(wanted))
    try:
        picture = admit(_read(wanted.content), rotation=wanted.rotation, min_side=wanted.min_side)
        placed = place(wanted, picture)
    except PictureError as rejected:
        return Failed(wanted.source, wanted.location, rejected.kind, str(rejected))
    path = FOLDER / "images" / f"{picture.sha256[:32]}{picture.suffix}"
    if not (root / path).exists():  # the same bytes are stored once, however many entries the manifest has for them
        files.write_bytes(root / path, picture.data)
    return Stored(wanted, path.as_posix(), picture.width, picture.height, picture.sha256, picture.changes, placed)


def _why_no_label(wanted: Wanted) -> str:
    labels = sorted({box.label for box in wanted.boxes})
    has = f"boxes of {', '.join(labels)}" if labels else "no box"
    return f"no single label ({has}), and `task: classify` needs one: set `label:` for this source"


def _read(content: Local) -> bytes:
    """The bytes of a file or of a part of it, at most one more than the door lets in."""
    try:
        with content.path.open("rb") as file:
            file.seek(content.offset)
            return file.read(MAX_BYTES + 1 if content.size is None else content.size)
    except FileNotFoundError:
        raise PictureError("missing", "no such file") from None
    except OSError as error:
        raise PictureError("unreadable", f"cannot be read: {error.strerror or error}") from None


def _dropped_boxes(item: Stored) -> list[Failed]:
    wanted = item.wanted
    return [Failed(wanted.source, wanted.location, "box", reason, ignored=True) for reason in item.placed.dropped]


def _write_failed(path: Path, failed: list[Failed]) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("source", "location", "reason"))
    writer.writerows((item.source, item.location, item.reason) for item in failed)
    files.write_text(path, buffer.getvalue())


def _check(params: FetchParams, stored: list[Stored], failed: list[Failed], *, needs_label: bool) -> None:
    lost = [item for item in failed if not item.ignored]
    if len(lost) > params.max_failed:
        first = lost[0]
        raise UserError(
            f"params.yaml: fetch.max_failed: {params.max_failed}: {_counted(len(lost))} rejected, the first is "
            f"{first.location} ({first.reason}); all are in {FOLDER}/failed.csv; mend them or raise the number"
        )
    labels = {item.wanted.label for item in stored}
    if needs_label and len(labels) < 2:
        has = f"only the label {', '.join(map(str, labels))!r}" if labels else "no picture"
        raise UserError(
            f"params.yaml: fetch.sources: {has} in all of them; a classifier needs two labels: add a source"
        )


def _counted(number: int) -> str:
    return "1 picture was" if number == 1 else f"{number:,} pictures were"


def _manifest(stored: list[Stored]) -> coco.Manifest:
    """The manifest: numbers follow the order of the sources, so the same pictures give the same bytes."""
    wanted = [item.wanted for item in stored]
    names = {picture.label for picture in wanted if picture.label is not None}
    categories = coco.categories(names | {box.label for picture in wanted for box in picture.boxes})
    number_of = {category.name: category.id for category in categories}
    images: list[coco.Image] = []
    annotations: list[coco.Annotation] = []
    for number, item in enumerate(stored, start=1):
        images.append(_image(number, item))
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


def _image(number: int, item: Stored) -> coco.Image:
    return coco.Image(
        id=number,
        file_name=item.file_name,
        width=item.width,
        height=item.height,
        sha256=item.sha256,
        source=item.wanted.source,
        label=item.wanted.label,
        split=item.wanted.split,
        group=item.wanted.group,
        license=item.wanted.license,
        author=item.wanted.author,
        landing_url=item.wanted.landing_url,
    )


def _metrics(stored: list[Stored], failed: list[Failed]) -> dict[str, int]:
    """Flat numbers for DVC and MLflow: how many of each."""
    lost = Counter(item.kind for item in failed if not item.ignored)
    changes = Counter(change for item in stored for change in item.changes)
    labels = Counter(item.wanted.label for item in stored if item.wanted.label is not None)
    return {
        "pictures": len(stored),
        "failed": lost.total(),
        "ignored": len(failed) - lost.total(),
        "identical": len(stored) - len({item.sha256 for item in stored}),
        "converted": sum(bool(item.changes) for item in stored),
        "boxes": sum(len(item.placed.boxes) for item in stored),
        "boxes_clipped": sum(item.placed.clipped for item in stored),
        "boxes_dropped": sum(len(item.placed.dropped) for item in stored),
        **{f"label.{label}": count for label, count in sorted(labels.items())},
        **{f"converted.{change}": count for change, count in sorted(changes.items())},
        **{f"failed.{kind}": count for kind, count in sorted(lost.items())},
    }


def _summary(metrics: dict[str, int]) -> str:
    """What a person wants to know: how many of each, and where the rest is."""

    def of(name: str) -> str:
        parts = [f"{key.partition('.')[2]} {count:,}" for key, count in metrics.items() if key.startswith(f"{name}.")]
        return f" ({', '.join(parts)})" if parts else ""

    line = f"fetch: {metrics['pictures']:,} pictures{of('label')}, {metrics['boxes']:,} boxes"
    line += f"; {metrics['converted']:,} converted{of('converted')}; {metrics['identical']:,} identical to another"
    if metrics["failed"] or metrics["ignored"]:
        line += (
            f"; {metrics['failed']:,} rejected{of('failed')} and {metrics['ignored']:,} ignored: {FOLDER}/failed.csv"
        )
    return line
