"""The fetch stage: pictures of all sources downloaded, validated, stored upright, and listed in one manifest."""

import shutil
import stat
from dataclasses import replace
from pathlib import Path

from headstart.base.errors import UserError
from headstart.base.files import write_bytes, write_json
from headstart.base.manifest import write_manifest
from headstart.base.parallel import parallel_map
from headstart.fetch.boxes import convert_boxes
from headstart.fetch.http.download import download_images
from headstart.fetch.http.responses import DownloadError
from headstart.fetch.label_conflicts import check_conflicts, conflict_rejections, find_conflicts
from headstart.fetch.outputs import FETCH_FOLDER, StoredImage, build_manifest, fetch_metrics, format_summary, write_csv
from headstart.fetch.outside import write_outside
from headstart.fetch.sources.collect import collect_images
from headstart.fetch.sources.records import LocalFile, Rejection, RemoteFile, Scene, SourceImage
from headstart.fetch.sources.scene import render_scene
from headstart.images.decode import MAX_BYTES, PictureError, configured_pil, validate_picture
from headstart.params.fetch import DownloadParams, FetchParams
from headstart.params.root import Params


def fetch(params: Params, root: Path, *, boxes: bool) -> None:
    """Run the stage: sources -> stages/fetch/{images/,annotations.json,attribution.csv,failed.csv,metrics.json}.

    Args:
        params: all of params.yaml.
        root: the repository root; every path in params is relative to it.
        boxes: the task learns from boxes; else from one label a picture.

    Raises:
        UserError: a source is invalid, more pictures than `fetch.max_failed` were rejected, identical pictures
            have different labels, or what is left is too little: fewer than two labels to classify, no box to detect.
    """
    folder = root / FETCH_FOLDER
    shutil.rmtree(folder / "images", ignore_errors=True)
    (folder / "annotations.json").unlink(missing_ok=True)  # its presence means that the stage is complete
    write_outside(params.fetch, root)  # before anything is read: a file that comes meanwhile runs fetch again
    listed = collect_images(params.fetch, root, boxes=boxes)
    local = _download_remote(listed, params.fetch.downloads)
    results = _decode_and_store(local, root, boxes=boxes)
    stored = [item for item in results if isinstance(item, StoredImage)]
    rejections = [item for item in results if isinstance(item, Rejection)]
    conflicts = find_conflicts(stored, boxes=boxes)
    allowed = params.fetch.allow_conflicting_labels
    listed_conflicts = conflict_rejections(conflicts, boxes=boxes)
    write_csv(folder / "failed.csv", ("source", "location", "reason"), rejections + listed_conflicts)
    _check_max_failed(params.fetch, rejections)
    check_conflicts(conflicts, boxes=boxes, allowed=allowed)
    _check_enough_images(stored, rejections, boxes=boxes)
    metrics = fetch_metrics(stored, rejections, boxes=boxes)
    write_json(folder / "metrics.json", metrics)
    manifest = build_manifest(stored, boxes=boxes)
    credited = [image for image in manifest.images if image.license or image.author or image.landing_url]
    write_csv(folder / "attribution.csv", ("file_name", "source", "license", "author", "landing_url"), credited)
    write_manifest(manifest, folder / "annotations.json")
    print(format_summary(metrics))


def _download_remote(items: list[SourceImage | Rejection], params: DownloadParams) -> list[SourceImage | Rejection]:
    """The same list with remote files replaced by files in the download cache, or by rejections."""
    urls = [
        item.content.url for item in items if isinstance(item, SourceImage) and isinstance(item.content, RemoteFile)
    ]
    with configured_pil():
        downloaded = download_images(urls, params, check_decodable)
    local: list[SourceImage | Rejection] = []
    for item in items:
        if isinstance(item, Rejection) or not isinstance(item.content, RemoteFile):
            local.append(item)
            continue
        result = downloaded[item.content.url]
        if isinstance(result, Path):
            local.append(replace(item, content=LocalFile(result)))
        else:
            local.append(Rejection(item.source, item.location, result.kind, str(result)))
    return local


def check_decodable(data: bytes) -> None:
    """The check of a downloaded picture: only what can be decoded stays in the download cache.

    Raises:
        DownloadError: the bytes are not a complete picture.
    """
    try:
        validate_picture(data)
    except PictureError as error:
        # Half a picture may be the network's fault, a web page is not.
        retry = error.kind in ("empty", "truncated", "broken")
        raise DownloadError(error.kind, str(error), retry=retry, max_attempts=3) from None


def _decode_and_store(
    items: list[SourceImage | Rejection], root: Path, *, boxes: bool
) -> list[StoredImage | Rejection]:
    """Every picture decoded, made upright and stored, in the order of the sources. PIL decodes without the GIL."""

    def store(item: SourceImage | Rejection) -> StoredImage | Rejection:
        return item if isinstance(item, Rejection) else _store_image(item, root, boxes=boxes)

    with configured_pil():
        return parallel_map(store, items, "fetch: pictures")


def _store_image(item: SourceImage, root: Path, *, boxes: bool) -> StoredImage | Rejection:
    if not boxes and item.label is None:
        return Rejection(item.source, item.location, "no_label", _no_label_reason(item))
    try:
        assert not isinstance(item.content, RemoteFile)
        picture = validate_picture(_read_content(item.content), rotation=item.rotation, min_side=item.min_side)
        pixel_boxes = convert_boxes(item, picture)
    except PictureError as error:
        return Rejection(item.source, item.location, error.kind, str(error))
    sha256 = picture.sha256
    path = FETCH_FOLDER / "images" / f"{sha256[:32]}{picture.suffix}"
    if not (root / path).exists():  # the same bytes are stored once, however many entries the manifest has for them
        write_bytes(root / path, picture.data)
    return StoredImage(item, path.as_posix(), picture.width, picture.height, sha256, picture.conversions, pixel_boxes)


def _no_label_reason(item: SourceImage) -> str:
    labels = sorted({box.label for box in item.boxes})
    has = f"boxes of {', '.join(labels)}" if labels else "no box"
    return f"no single label ({has}), and `task: classify` needs one: set `label:` for this source"


def _read_content(content: LocalFile | Scene) -> bytes:
    """The bytes of a file or of a part of it, or of a rendered scene; at most MAX_BYTES + 1, one more than is valid."""
    limit = MAX_BYTES + 1
    try:
        if isinstance(content, Scene):
            return render_scene(content)
        if not stat.S_ISREG(content.path.stat().st_mode):  # reading from a pipe would wait forever
            raise PictureError("unreadable", "not a file")
        with content.path.open("rb") as file:
            file.seek(content.offset)
            return file.read(limit if content.size is None else min(content.size, limit))
    except FileNotFoundError:
        raise PictureError("missing", "no such file") from None
    except OSError as error:
        raise PictureError("unreadable", f"cannot be read: {error.strerror or error}") from None


def _check_max_failed(params: FetchParams, rejections: list[Rejection]) -> None:
    failed = [item for item in rejections if not item.ignored]
    if len(failed) > params.max_failed:
        raise UserError(
            f"params.yaml: fetch.max_failed: {params.max_failed}: {_format_count(len(failed))} rejected, the first is "
            f"{_describe(failed[0])}; all are in {FETCH_FOLDER}/failed.csv; repair them or raise the number"
        )


def _describe(rejection: Rejection) -> str:
    """Its location and reason, and its source where neither of them shows it (a table's rows name pictures alone)."""
    path = rejection.source.partition(":")[2]
    is_shown = path in f"{rejection.location} {rejection.reason}"
    return f"{rejection.location}{'' if is_shown else f' of {rejection.source}'} ({rejection.reason})"


def _check_enough_images(stored: list[StoredImage], rejections: list[Rejection], *, boxes: bool) -> None:
    if not stored and rejections:
        failed = [item for item in rejections if not item.ignored] or rejections
        raise UserError(
            f"params.yaml: fetch.sources: no picture is left: {_format_count(len(failed))} rejected, the first is "
            f"{_describe(failed[0])}; all are in {FETCH_FOLDER}/failed.csv; repair them or add a source"
        )
    if boxes and not any(not box.crowd for item in stored for box in item.pixel_boxes.boxes):
        pictures = "in 1 picture" if len(stored) == 1 else f"in all {len(stored):,} pictures"
        raise UserError(
            f"params.yaml: fetch.sources: no box {pictures}, crowds aside; a detector learns from boxes: add a source "
            "that has them, or set `task: classify`"
        )
    labels = {item.source_image.label for item in stored}
    if not boxes and len(labels) < 2:
        has = f"only the label {', '.join(map(str, labels))!r}" if labels else "no picture"
        raise UserError(
            f"params.yaml: fetch.sources: {has} in all of them; a classifier needs two labels: add a source"
        )


def _format_count(number: int) -> str:
    return "1 picture was" if number == 1 else f"{number:,} pictures were"
