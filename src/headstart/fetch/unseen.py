"""What the sources read and DVC's hash of data/ does not cover: links to folders, paths outside data/, packages."""

import importlib.metadata
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headstart.base.errors import UserError
from headstart.fetch.http.addresses import is_remote, local_path
from headstart.fetch.sources.paths import is_dropping, printable_path
from headstart.fetch.sources.table import find_package_folder
from headstart.fetch.sources.table_rows import read_rows
from headstart.fetch.sources.yolo_layout import read_set
from headstart.params.fetch import FetchParams, SourceParams

_MANY = 20  # files of one folder; where there are more, the folder stands for them
_PATH_FIELDS = ("images", "annotations", "labels", "names", "data")  # of the sections of sources


@dataclass(frozen=True)
class Unseen:
    """One place that a source reads and DVC does not hash.

    Attributes:
        kind: `link`, to a folder: DVC hashes it as an empty folder; `outside` data/; `package`, files of an installed
            Python package; `file-address`, a file:// address.
        path: as written in params or in the table, or a link's path from the repository root.
        target: the file or folder that is read; None where its contents do not change.
    """

    kind: Literal["link", "outside", "package", "file-address"]
    path: str
    target: Path | None


def unseen_by_dvc(params: FetchParams, root: Path) -> list[Unseen]:
    """Every place that the sources read and DVC's hash of data/ does not cover, once, in the order of the sources.

    A place within another one of the list is left out.

    Folders are listed and tables are read, pictures are not opened. A link to a file, and data/ itself as a link,
    are no places of that kind: DVC hashes what they lead to.

    Raises:
        UserError: a table, or data.yaml of a YOLO set, cannot be read.
    """
    found: dict[Unseen, None] = {}
    for number, source in enumerate(params.sources):
        try:
            found |= dict.fromkeys(_unseen_of_source(source, root))
        except UserError as error:
            raise UserError(f"params.yaml: fetch.sources.{number}: {error}") from None
    targets = {place.target for place in found}
    return [place for place in found if place.target is None or targets.isdisjoint(place.target.parents)]


def _unseen_of_source(source: SourceParams, root: Path) -> Iterator[Unseen]:
    if source.folder is not None:
        yield from _unseen_path(source.folder, root)
    elif source.table is not None:
        yield from _unseen_table("table", source.table, root)
    elif source.mosaic is not None:
        yield from _unseen_table("mosaic.table", source.mosaic.table, root)
    elif source.open_images is not None:
        yield from _unseen_mirror(source.open_images.metadata_url, is_fixed=False)
        yield from _unseen_mirror(source.open_images.images_url, is_fixed=True)
    elif source.stanford_dogs is not None:
        yield from _unseen_mirror(source.stanford_dogs.base_url, is_fixed=False)
    else:
        section = getattr(source, source.kinds()[0])
        for name in _PATH_FIELDS:
            if getattr(section, name, None) is not None:
                yield from _unseen_path(getattr(section, name), root)
    if source.yolo is not None and source.yolo.data is not None:  # its data.yaml may lead elsewhere
        pictures = read_set(source.yolo, root).pictures
        files = [path for picture in pictures for path in (picture.path, *picture.labels)]
        yield from _unseen_files([os.path.relpath(path, root) for path in files], root, root)


def _unseen_path(written: str, root: Path) -> Iterator[Unseen]:
    """A file or folder of params: itself, or the links to folders in it."""
    place = _unseen_place(root / written, written, root)
    if place is not None:
        yield place
    elif (root / written).is_dir():
        for link in _links_below(root / written):
            yield Unseen("link", _from_root(link, root), link.resolve())


def _unseen_place(path: Path, written: str, root: Path) -> Unseen | None:
    """The place for a path that leads out of data/, or through a link to a folder; None if DVC sees it."""
    data = _absolute(root / "data")
    absolute = _absolute(path)
    if not absolute.exists():
        return None  # fetch names it
    if not absolute.is_relative_to(data):
        return Unseen("outside", written, absolute)
    names = absolute.relative_to(data).parts
    folders = (data.joinpath(*names[:depth]) for depth in range(1, len(names) + 1))
    link = next((folder for folder in folders if folder.is_symlink() and folder.is_dir()), None)
    return None if link is None else Unseen("link", _from_root(link, root), link.resolve())


def _absolute(path: Path) -> Path:
    """The path from the root of the disk, without `..`; links are kept, unlike `resolve`."""
    return Path(os.path.normpath(Path.cwd() / path))


def _links_below(top: Path) -> Iterator[Path]:
    """Links to folders, sorted; they are not entered, so a loop ends."""
    try:
        entries = sorted(os.scandir(top), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{printable_path(top)}: cannot be read ({error.strerror or error})") from None
    for entry in entries:
        if is_dropping(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _links_below(Path(entry.path))
        elif entry.is_symlink() and Path(entry.path).is_dir():
            yield Path(entry.path)


def _from_root(path: Path, root: Path) -> str:
    return printable_path(Path(os.path.relpath(path, root)))


def _unseen_table(key: str, table: str, root: Path) -> Iterator[Unseen]:
    """The table itself, and the pictures that it names."""
    place = _unseen_place(root / table, table, root)
    if place is not None:
        yield place
    _, rows = read_rows(root / table, f"{key}: {table}", ("image",))
    images = list(dict.fromkeys(row.get("image", "") for _, row in rows))
    packages = dict.fromkeys(image.split(":")[1].split("/")[0] for image in images if image.startswith("package:"))
    yield from (_unseen_package(package) for package in packages)
    addresses = [image for image in images if image.startswith("file://")]
    yield from _files_or_folders("file-address", [(address, local_path(address)) for address in addresses])
    local = [image for image in images if image and not image.startswith("package:") and "://" not in image]
    yield from _unseen_files([image for image in local if not is_remote(image)], (root / table).parent, root)


def _unseen_files(images: Iterable[str], folder: Path, root: Path) -> Iterator[Unseen]:
    """Places of files that are named relative to `folder`: links to folders on their way, or files outside data/."""
    by_parent: dict[Path, list[str]] = defaultdict(list)
    for image in images:
        by_parent[(folder / image).parent].append(image)
    outside: list[tuple[str, Path]] = []
    for parent, names in by_parent.items():
        place = _unseen_place(parent, names[0], root)
        if place is not None and place.kind == "link":
            yield place
        elif place is not None:
            outside += [(name, _absolute(folder / name)) for name in names]
    yield from _files_or_folders("outside", outside)


def _files_or_folders(kind: Literal["outside", "file-address"], files: Iterable[tuple[str, Path]]) -> Iterator[Unseen]:
    """Each file, or their folder where one holds many of them."""
    by_parent: dict[Path, dict[str, Path]] = defaultdict(dict)
    for written, path in files:
        by_parent[path.parent][written] = path
    for parent, named in by_parent.items():
        if len(named) > _MANY:
            yield Unseen(kind, printable_path(parent), parent)
        else:
            yield from (Unseen(kind, written, path) for written, path in named.items())


def _unseen_package(package: str) -> Unseen:
    """An installed package, with the name and version of its distribution."""
    distributions = importlib.metadata.packages_distributions().get(package, ())
    versions = [f"{name} {importlib.metadata.version(name)}" for name in sorted(set(distributions))]
    path = f"package:{package}" + (f" ({', '.join(versions)})" if versions else "")
    return Unseen("package", path, find_package_folder(package))


def _unseen_mirror(url: str, *, is_fixed: bool) -> Iterator[Unseen]:
    """A mirror on this machine; `is_fixed`: its pictures are named by an id and never change."""
    if url.startswith("file://"):
        yield Unseen("file-address", url, None if is_fixed else local_path(url))
