"""fetch: everything that comes from outside becomes pictures on disk and one manifest."""

import shutil
import stat
from dataclasses import replace
from pathlib import Path

from headstart import coco, download, fetched, files, pool
from headstart.answers import TransferError
from headstart.boxes import place
from headstart.door import MAX_BYTES, PictureError, admit, pil_set_up
from headstart.errors import UserError
from headstart.fetch_params import DownloadParams, FetchParams
from headstart.fetched import FOLDER
from headstart.params import Params
from headstart.sources import Failed, Local, Remote, Wanted, collect
from headstart.sources.scene import Scene, compose


def fetch(params: Params, root: Path) -> None:
    """Run the stage: sources -> stages/fetch/{images/,annotations.json,attribution.csv,failed.csv,metrics.json}.

    Args:
        params: all of params.yaml.
        root: the repository root; every path in params is relative to it.

    Raises:
        UserError: a source is not in order, more pictures than `fetch.max_failed` were rejected, or what is left
            is too little: fewer than two labels to classify, no box to detect.
    """
    folder = root / FOLDER
    shutil.rmtree(folder / "images", ignore_errors=True)
    (folder / "annotations.json").unlink(missing_ok=True)  # its presence means that the stage is complete
    needs_label = params.task == "classify"
    wanted = collect(params.fetch, root, detect=not needs_label)
    found = _downloaded(wanted, params.fetch.downloads)
    done = _through_the_door(found, needs_label=needs_label, root=root)
    stored = [item for item in done if isinstance(item, fetched.Stored)]
    failed = [item for item in done if isinstance(item, Failed)]
    failed += [box for item in stored for box in _dropped_boxes(item)]
    fetched.write_table(folder / "failed.csv", ("source", "location", "reason"), failed)
    _check(params.fetch, stored, failed, needs_label=needs_label)
    metrics = fetched.metrics(stored, failed, labels=needs_label)
    files.write_json(folder / "metrics.json", metrics)
    manifest = fetched.manifest(stored, labels=needs_label)
    credited = [image for image in manifest.images if image.license or image.author or image.landing_url]
    fetched.write_table(
        folder / "attribution.csv", ("file_name", "source", "license", "author", "landing_url"), credited
    )
    coco.write(manifest, folder / "annotations.json")
    print(fetched.summary(metrics))


def _downloaded(found: list[Wanted | Failed], params: DownloadParams) -> list[Wanted | Failed]:
    """What is remote comes into the cache first; nothing stays there that cannot be decoded."""
    urls = [item.content.url for item in found if isinstance(item, Wanted) and isinstance(item.content, Remote)]
    with pil_set_up():
        answers = download.pictures(urls, params, decodable)
    arrived: list[Wanted | Failed] = []
    for item in found:
        if isinstance(item, Failed) or not isinstance(item.content, Remote):
            arrived.append(item)
            continue
        answer = answers[item.content.url]
        if isinstance(answer, Path):
            arrived.append(replace(item, content=Local(answer)))
        else:
            arrived.append(Failed(item.source, item.location, answer.kind, str(answer)))
    return arrived


def decodable(data: bytes) -> None:
    """The check of a downloaded picture.

    Raises:
        TransferError: the bytes are no whole picture.
    """
    try:
        admit(data)
    except PictureError as error:
        # Half a picture may be the network's fault, a web page is not.
        again = error.kind in ("empty", "truncated", "broken")
        raise TransferError(error.kind, str(error), retry=again, attempts=3) from None


def _through_the_door(found: list[Wanted | Failed], *, needs_label: bool, root: Path) -> list[fetched.Stored | Failed]:
    """Every picture decoded, made upright and stored, in the order of the sources. PIL decodes without the GIL."""

    def through(item: Wanted | Failed) -> fetched.Stored | Failed:
        return item if isinstance(item, Failed) else _store(item, needs_label=needs_label, root=root)

    with pil_set_up():
        return pool.each(through, found, "fetch: pictures")


def _store(wanted: Wanted, *, needs_label: bool, root: Path) -> fetched.Stored | Failed:
    if needs_label and wanted.label is None:
        return Failed(wanted.source, wanted.location, "no_label", _why_no_label(wanted))
    try:
        assert not isinstance(wanted.content, Remote)
        picture = admit(_read(wanted.content), rotation=wanted.rotation, min_side=wanted.min_side)
        placed = place(wanted, picture)
    except PictureError as rejected:
        return Failed(wanted.source, wanted.location, rejected.kind, str(rejected))
    if not needs_label and wanted.boxes and not placed.boxes:  # it shows something: background it is not
        return Failed(wanted.source, wanted.location, "no_box", f"none of its boxes can be used: {placed.dropped[0]}")
    sha256 = picture.sha256
    path = FOLDER / "images" / f"{sha256[:32]}{picture.suffix}"
    if not (root / path).exists():  # the same bytes are stored once, however many entries the manifest has for them
        files.write_bytes(root / path, picture.data)
    return fetched.Stored(wanted, path.as_posix(), picture.width, picture.height, sha256, picture.changes, placed)


def _why_no_label(wanted: Wanted) -> str:
    labels = sorted({box.label for box in wanted.boxes})
    has = f"boxes of {', '.join(labels)}" if labels else "no box"
    return f"no single label ({has}), and `task: classify` needs one: set `label:` for this source"


def _read(content: Local | Scene) -> bytes:
    """The bytes of a file or of a part of it, at most one more than the door lets in; or of what is to be made."""
    most = MAX_BYTES + 1
    try:
        if isinstance(content, Scene):
            return compose(content)
        if not stat.S_ISREG(content.path.stat().st_mode):  # a pipe would be waited for, forever
            raise PictureError("unreadable", "not a file")
        with content.path.open("rb") as file:
            file.seek(content.offset)
            return file.read(most if content.size is None else min(content.size, most))
    except FileNotFoundError:
        raise PictureError("missing", "no such file") from None
    except OSError as error:
        raise PictureError("unreadable", f"cannot be read: {error.strerror or error}") from None


def _dropped_boxes(item: fetched.Stored) -> list[Failed]:
    wanted = item.wanted
    return [Failed(wanted.source, wanted.location, "box", reason, ignored=True) for reason in item.placed.dropped]


def _check(params: FetchParams, stored: list[fetched.Stored], failed: list[Failed], *, needs_label: bool) -> None:
    lost = [item for item in failed if not item.ignored]
    if len(lost) > params.max_failed:
        first = lost[0]
        raise UserError(
            f"params.yaml: fetch.max_failed: {params.max_failed}: {_counted(len(lost))} rejected, the first is "
            f"{first.location} ({first.reason}); all are in {FOLDER}/failed.csv; mend them or raise the number"
        )
    if not needs_label and not any(not crowd for item in stored for _, _, crowd in item.placed.boxes):
        pictures = (
            "in 1 picture" if len(stored) == 1 else f"in all {len(stored):,} pictures" if stored else "and no picture"
        )
        raise UserError(
            f"params.yaml: fetch.sources: no box {pictures}, crowds aside; a detector learns from boxes: add a source "
            "that has them, or set `task: classify`"
        )
    labels = {item.wanted.label for item in stored}
    if needs_label and len(labels) < 2:
        has = f"only the label {', '.join(map(str, labels))!r}" if labels else "no picture"
        raise UserError(
            f"params.yaml: fetch.sources: {has} in all of them; a classifier needs two labels: add a source"
        )


def _counted(number: int) -> str:
    return "1 picture was" if number == 1 else f"{number:,} pictures were"
