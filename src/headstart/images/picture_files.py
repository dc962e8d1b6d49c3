"""Which files in a folder are pictures: those named like one, but none that a system or a tool left there."""

import os
from pathlib import Path

from headstart.base.errors import UserError

_SUFFIXES = "jpg jpeg jpe jfif mpo png gif bmp dib tif tiff webp avif jp2 j2k ppm pgm pbm heic heif"
PICTURE_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
# In lower case. Hidden files (.DS_Store, ._1.jpg) are theirs too.
_DROPPINGS = {
    "__macosx",
    "__pycache__",
    "@eadir",
    "#recycle",
    "@recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
}


def is_picture(path: Path) -> bool:
    """Whether a file's name ends like a picture's."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def is_dropping(name: str) -> bool:
    """Whether a file or folder is a system's or a tool's own by its name, and no part of the user's data."""
    return name.startswith(".") or name.lower() in _DROPPINGS


def list_pictures(top: Path) -> list[Path]:
    """The pictures under a folder, sorted by path; links are followed, and each folder is entered once.

    Raises:
        UserError: a folder cannot be read.
    """

    def stop(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); give yourself the right to read it")

    pictures: list[Path] = []
    visited: set[Path] = set()
    for folder, subfolders, names in os.walk(top, followlinks=True, onerror=stop):
        if (real_path := Path(folder).resolve()) in visited:  # a loop of links, or a second link
            subfolders.clear()
            continue
        visited.add(real_path)
        subfolders[:] = sorted(name for name in subfolders if not is_dropping(name))
        pictures += [Path(folder, name) for name in names if is_picture(Path(name)) and not is_dropping(name)]
    return sorted(pictures)
