"""Pictures in class folders (`ants/1.jpg`) or in split/class folders (`train/ants/1.jpg`)."""

import os
from collections.abc import Iterator
from pathlib import Path

from headstart.errors import UserError
from headstart.section import Split
from headstart.sources.wanted import Failed, Local, Wanted

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_SUFFIXES = "jpg jpeg jpe jfif mpo png gif bmp dib tif tiff webp avif jp2 j2k ppm pgm pbm heic heif"
PICTURE_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())


def wanted(folder: str, root: Path, *, any_label: bool) -> Iterator[Wanted | Failed]:
    """Every picture under a folder, sorted by path, labelled by its class folder.

    Args:
        folder: the folder, relative to `root`.
        root: the repository root.
        any_label: the source sets a label for all its pictures, so they need no class folder.

    Raises:
        UserError: there is no such folder, no class folder in it, or no picture.
    """
    top = need_folder("folder", folder, root)
    source = f"folder:{folder}"
    has_splits = split_folders(top)
    count = 0
    for path in files_under(top):
        parts = path.relative_to(top).parts
        location = shown(Path(folder) / path.relative_to(top))
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            yield Failed(source, location, "other_file", f"no picture by its name ({path.suffix or path.name})", True)
            continue
        count += 1
        split = SPLIT_NAMES.get(parts[0].lower()) if has_splits else None
        classes = parts[1 if split else 0 : -1]
        if not classes and not any_label:
            shape = "one folder for each class" if not split else f"one folder for each class in {folder}/{parts[0]}"
            raise UserError(f"folder: {location}: this picture is in no class folder; make {shape}, or set `label:`")
        yield Wanted(location, source, Local(path), label=shown(Path(classes[0])) if classes else None, split=split)
    if not count:
        raise UserError(f"folder: {folder}: no pictures in it; put some there, in one folder for each class")


def shown(path: Path) -> str:
    """A path as text that any file can hold: bytes of a name that are no UTF-8 are spelt out."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode()


def need_folder(key: str, folder: str, root: Path) -> Path:
    """The folder that a key of params names.

    Raises:
        UserError: there is none.
    """
    if not (root / folder).is_dir():
        raise UserError(f"{key}: {folder}: no such folder; put it there or change the path")
    return root / folder


def split_folders(top: Path) -> bool:
    """All folders are named like splits: a class called `train` (a vehicle) beside `bus` is a class."""
    names = [entry.name.lower() for entry in top.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    return bool(names) and all(name in SPLIT_NAMES for name in names)


def files_under(top: Path) -> list[Path]:
    """All files under a folder, sorted; links are followed, each folder is entered once, so a loop of links ends."""
    files, seen = [], set()
    for where, folders, names in os.walk(top, followlinks=True):
        real = Path(where).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        # Hidden files are the desktop's and git's, not the user's; so are these two of Windows.
        files += [Path(where) / n for n in names if not n.startswith(".") and n not in {"Thumbs.db", "desktop.ini"}]
    return sorted(files)
