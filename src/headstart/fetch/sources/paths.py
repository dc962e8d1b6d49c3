"""Files and folders of sources: found, listed, and named in error lines."""

import os
from pathlib import Path

from headstart.base.errors import UserError, missing_file
from headstart.base.manifest import Split

SPLIT_OF_FOLDER: dict[str, Split] = {
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


def printable_path(path: Path) -> str:
    """A path as text that any file can hold: bytes of a name that are not UTF-8 are escaped."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode()


def require_folder(key: str, folder: str, root: Path) -> Path:
    """The folder that a key of params names, relative to `root`.

    Raises:
        UserError: there is no such folder.
    """
    if not (root / folder).is_dir():
        raise UserError(f"{key}: {folder}: no such folder; put it there or change the path")
    return root / folder


def has_split_folders(top: Path) -> bool:
    """Whether all folders are named like splits: a class called `train` (a vehicle) beside `bus` is a class."""
    names = [entry.name.lower() for entry in top.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    return bool(names) and all(name in SPLIT_OF_FOLDER for name in names)


def walk_files(top: Path) -> list[Path]:
    """All files under a folder, sorted; links are followed, each folder is entered once, so a loop of links ends."""
    files, visited = [], set()
    for folder, subfolders, names in os.walk(top, followlinks=True):
        real_path = Path(folder).resolve()
        if real_path in visited:
            subfolders.clear()
            continue
        visited.add(real_path)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        # Hidden files are the desktop's and git's, not the user's; so are these two of Windows.
        files += [Path(folder) / n for n in names if not n.startswith(".") and n not in {"Thumbs.db", "desktop.ini"}]
    return sorted(files)


def is_picture(path: Path) -> bool:
    """Whether a file's name ends like a picture's."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def list_pictures(key: str, folder: str, top: Path) -> list[Path]:
    """The pictures under the folder `top`, which is `folder` in params, sorted by path.

    Raises:
        UserError: there are none.
    """
    pictures = [path for path in walk_files(top) if is_picture(path)]
    if not pictures:
        raise UserError(f"{key}: {folder}: no pictures in it; name the folder of pictures")
    return pictures


def read_text_file(path: Path, where: str, fix: str) -> str:
    """A text file of the user, UTF-8 with or without a byte order mark.

    Args:
        path: the file.
        where: how an error line begins: the key of params and the path as written there.
        fix: what to do if the file is missing.

    Raises:
        UserError: the file is missing or not UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")  # spreadsheets may put a byte order mark first
    except FileNotFoundError:
        raise missing_file(where, fix) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{where}: cannot be read as UTF-8 text ({error})") from None
