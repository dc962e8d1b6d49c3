"""Where the pictures of a YOLO set lie, which label file belongs to each, and which split it is in."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headstart.base.errors import UserError, list_some, missing_file
from headstart.base.manifest import Split
from headstart.fetch.sources.paths import (
    SPLIT_OF_FOLDER,
    has_split_folders,
    is_dropping,
    is_picture,
    list_pictures,
    printable_path,
    read_text_file,
    require_folder,
    walk_files,
)
from headstart.fetch.sources.yolo_labels import YoloPicture, labels_folder, match_labels
from headstart.fetch.sources.yolo_yaml import YAML_SUFFIXES, YoloConfig, read_config
from headstart.params.fetch import YoloParams


@dataclass(frozen=True)
class YoloSet:
    """A YOLO set as it lies on disk.

    Attributes:
        key: how an error line about its labels begins: the key of params.
        source: kind and place, such as `yolo:data/export`.
        config: the names of the classes and what else data.yaml says.
        config_file: that file, as the user knows it.
        pictures: sorted by path.
        unused: text files where labels lie that belong to no picture.
        missing: folders that data.yaml names and that are not there.
    """

    key: str
    source: str
    config: YoloConfig
    config_file: str
    pictures: list[YoloPicture]
    unused: list[Path]
    missing: list[str] = field(default_factory=list)


def display(path: Path, root: Path) -> str:
    """A path as the user knows it: relative to the repository root where it lies below it."""
    return printable_path(path.relative_to(root) if path.is_relative_to(root) else path)


def read_set(params: YoloParams, root: Path) -> YoloSet:
    """Find names, pictures, label files and splits.

    Raises:
        UserError: a folder or file is missing, there is no picture, or data.yaml contradicts itself.
    """
    return _read_parts(params, root) if params.data is None else _read_export(params.data, root)


def _read_parts(params: YoloParams, root: Path) -> YoloSet:
    """A set as three paths: pictures, label files in the same folders below `labels`, and names."""
    assert params.images is not None
    assert params.labels is not None
    assert params.names is not None
    images = require_folder("yolo.images", params.images, root)
    labels = require_folder("yolo.labels", params.labels, root)
    config = read_config(root / params.names, f"yolo.names: {params.names}")
    has_splits = has_split_folders(images)
    pictures = []
    for path in list_pictures("yolo.images", params.images, images):
        inside = path.relative_to(images)
        split = SPLIT_OF_FOLDER.get(inside.parts[0].lower()) if has_splits else None
        folders = dict.fromkeys((labels / inside.parent, labels / labels_folder(inside)))
        pictures.append(YoloPicture(path, split, tuple(folders)))
    unused = match_labels(pictures, walk_files(labels), root / params.names)
    return YoloSet("yolo.labels", f"yolo:{params.labels}", config, params.names, pictures, unused)


def _read_export(data: str, root: Path) -> YoloSet:
    """An export in one folder: as its data.yaml says, or by its folders `images` and `labels`."""
    where = f"yolo.data: {data}"
    top = root / data
    if not top.exists():
        raise missing_file(where, "name the folder of the export, or its data.yaml")
    if not top.is_dir() and top.suffix.lower() not in YAML_SUFFIXES:
        raise UserError(f"{where}: neither a folder nor a data.yaml; name the unpacked folder of the export")
    config_path = _find_config(top, where) if top.is_dir() else top
    config_file = display(config_path, root)
    config = read_config(config_path, f"yolo.data: {config_file}")
    folder = top if top.is_dir() else top.parent
    places = _Places(config, folder, root, f"yolo.data: {config_file}")
    if config.splits:
        paths = places.pictures_by_split()
    else:
        paths = _split_by_folder(list_pictures("yolo.data", data, folder), folder)
    if not paths:
        raise UserError(f"yolo.data: {config_file}: no pictures where it says; put them there or correct it")
    pictures = [YoloPicture(path, split, _label_folders(path, root)) for path, split in paths.items()]
    label_folders = sorted({one for picture in pictures for one in picture.folders})
    unused = match_labels(pictures, [file for one in label_folders for file in _list_files(one)], config_path)
    if places.has_lists:  # they may leave out pictures on purpose
        unused = []
        for picture in pictures:
            picture.astray = []
    return YoloSet("yolo.data", f"yolo:{data}", config, config_file, pictures, unused, places.missing)


def _find_config(folder: Path, where: str) -> Path:
    """data.yaml, the only other YAML file, or labelImg's classes.txt."""
    files = _list_files(folder)
    found = [path for path in files if path.suffix.lower() in YAML_SUFFIXES]
    named = [path for path in found if path.stem.lower() == "data"] or found
    if len(named) > 1:
        raise UserError(f"{where}: which of {list_some([path.name for path in named], 3)}? name the file")
    texts = [folder / "classes.txt", folder / "labels/classes.txt", *(p for p in files if p.suffix == ".names")]
    named += [path for path in texts if path.is_file()]
    if named:
        return named[0]
    below = [path for suffix in YAML_SUFFIXES for path in sorted(folder.glob(f"*/data{suffix}"))]
    fix = f"did you mean {where.partition(': ')[2]}/{below[0].parent.name}?" if below else "put the names there"
    raise UserError(f"{where}: no data.yaml and no classes.txt in it; {fix}")


class _Places:
    """The folders and lists that data.yaml names, on this machine.

    Attributes:
        has_lists: some entry is a text file that lists pictures.
        missing: entries of a test set that is not there: both tools write the key whether there is one or not.
    """

    def __init__(self, config: YoloConfig, folder: Path, root: Path, where: str) -> None:
        self.config, self.folder, self.root, self.where = config, folder, root, where
        self.bases = (folder / config.path, folder)  # `path` may be of another machine
        self.has_lists = False
        self.missing: list[str] = []

    def pictures_by_split(self) -> dict[Path, Split | None]:
        """Each picture of the entries with its split, sorted; two splits of the same pictures are no split.

        Raises:
            UserError: an entry is missing, or a picture is in two splits.
        """
        pictures = {split: self._pictures(split, entries) for split, entries in self.config.splits.items()}
        splits: dict[Path, Split | None] = {}
        for split, paths in pictures.items():
            same = [other for other, others in pictures.items() if other != split and others.keys() == paths.keys()]
            for path in paths:
                if splits.get(path) is not None:
                    both = f"{display(path, self.root)} is in {splits[path]} and in {split}"
                    raise UserError(f"{self.where}: {both}; leave it in one of them")
                splits[path] = None if same else split
        return dict(sorted(splits.items()))

    def _pictures(self, split: Split, entries: Sequence[str]) -> dict[Path, None]:
        places = [self._resolve(split, entry) for entry in entries]
        return {path: None for place in places if place is not None for path in self._list(place)}

    def _resolve(self, split: Split, entry: str) -> Path | None:
        """The folder or list of pictures that an entry means: Roboflow writes `../train/images` for a folder beside."""
        inside = entry
        while inside.startswith("../"):
            inside = inside[3:]
        found = _first_existing(base / inside for base in self.bases)
        outside = _first_existing(base / entry for base in (*self.bases, self.root / self.config.path))
        where = f"{self.where}: {split}: {entry}"
        if inside != entry and found and outside and found.resolve() != outside.resolve():
            both = f"{display(found, self.root)} or {display(outside, self.root)}"
            raise UserError(f"{where}: is it {both}? write the path without `../`")
        found = found or outside or _tail_below(entry, self.folder)
        if found is None and split != "test":
            raise UserError(f"{where}: no such folder; put it there or correct the line")
        if found is None:
            self.missing.append(f"{split}: {entry}")
        elif not found.is_dir() and found.suffix.lower() != ".txt":
            raise UserError(f"{where}: neither a folder nor a .txt list of pictures; correct it")
        return found

    def _list(self, place: Path) -> list[Path]:
        """The pictures under a folder, or those that a list names: relative to the list, or to the set."""
        if place.is_dir():
            return [path for path in walk_files(place) if is_picture(path)]
        self.has_lists = True
        text = read_text_file(place, f"yolo.data: {display(place, self.root)}", "correct the path in data.yaml")
        found = []
        for line in (line.strip().replace("\\", "/") for line in text.splitlines() if line.strip()):
            bases = (place.parent, *self.bases, self.root)
            path = _first_existing(base / line for base in bases) or _tail_below(line, self.folder)
            found.append(path or Path(os.path.normpath(place.parent / line)))  # missing: rejected when it is read
        return found


def _first_existing(paths: Iterable[Path]) -> Path | None:
    return next((path for path in (Path(os.path.normpath(path)) for path in paths) if _exists(path)), None)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, or a folder that may not be entered
        return False


def _tail_below(entry: str, folder: Path) -> Path | None:
    """The longest end of a path of another machine that exists below the folder."""
    parts = [part for part in entry.split("/") if part not in ("", ".", "..")]
    return _first_existing(folder.joinpath(*parts[start:]) for start in range(len(parts)))


def _split_by_folder(paths: Sequence[Path], top: Path) -> dict[Path, Split | None]:
    """Splits by the folders of `images/train/1.jpg` and `train/images/1.jpg`, where all pictures lie in such ones."""
    splits: dict[Path, Split | None] = {}
    for path in paths:
        folders = [part for part in path.relative_to(top).parts[:-1] if part != "images"]
        splits[path] = SPLIT_OF_FOLDER.get(folders[0].lower()) if folders else None
    return splits if all(splits.values()) else dict.fromkeys(paths)


def _label_folders(path: Path, root: Path) -> tuple[Path, ...]:
    """Where the label file of a picture may lie: in `labels` in place of `images`, or beside the picture."""
    base = root if path.is_relative_to(root) else Path(path.anchor)
    return tuple(dict.fromkeys((base / labels_folder(path.relative_to(base)), path.parent)))


def _list_files(folder: Path) -> list[Path]:
    """The files of a folder but droppings, sorted; none where there is no such folder.

    Raises:
        UserError: the folder cannot be read.
    """
    if not folder.is_dir():
        return []
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.is_dir() and not is_dropping(entry.name))
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
        raise UserError(f"yolo: {printable_path(folder)}: {problem}; give yourself the right to read it") from None
