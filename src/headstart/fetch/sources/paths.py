"""Files and folders of sources: found, listed, and named in error lines."""

import codecs
import os
import sys
import unicodedata
from pathlib import Path

from headstart.base.errors import UserError, missing_file
from headstart.base.manifest import Split
from headstart.images import picture_files

_SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
# In lower case; archives write train, training_set, Test-Set, valset.
SPLIT_OF_FOLDER: dict[str, Split] = {
    f"{name}{ending}": split for name, split in _SPLIT_NAMES.items() for ending in ("", "set", "_set", "-set", " set")
}
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# One list for fetch and for `headstart predict`.
PICTURE_SUFFIXES, is_picture, is_dropping = (
    picture_files.PICTURE_SUFFIXES,
    picture_files.is_picture,
    picture_files.is_dropping,
)


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


def list_folders(top: Path) -> list[str]:
    """Names of the folders in a folder, droppings left out, sorted.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        return sorted(entry.name for entry in top.iterdir() if entry.is_dir() and not is_dropping(entry.name))
    except OSError as error:
        raise _unreadable(error) from None


def has_split_folders(top: Path) -> bool:
    """Whether all folders are named like splits: a class called `train` (a vehicle) beside `bus` is a class."""
    names = list_folders(top)
    return bool(names) and all(name.lower() in SPLIT_OF_FOLDER for name in names)


def walk_files(top: Path) -> list[Path]:
    """All files under a folder but droppings, sorted; links are followed.

    Each folder is entered once, so a loop of links ends; a second way to a folder is told on stderr.

    Raises:
        UserError: a folder cannot be read: its files would be missing without a word.
    """

    def stop(error: OSError) -> None:
        raise _unreadable(error)

    files: list[Path] = []
    visited: dict[Path, Path] = {}
    for folder, subfolders, names in os.walk(top, followlinks=True, onerror=stop):
        real_path = Path(folder).resolve()
        first = visited.setdefault(real_path, Path(folder))
        if first != Path(folder):
            subfolders.clear()
            if not Path(folder).is_relative_to(first):  # else it is a loop
                same = f"{printable_path(Path(folder))}: the same folder as {printable_path(first)}"
                print(f"fetch: {same}, by a link; its files are read once", file=sys.stderr)
            continue
        subfolders[:] = sorted(name for name in subfolders if not is_dropping(name))
        files += [Path(folder) / name for name in names if not is_dropping(name)]
    return sorted(files)


def _unreadable(error: OSError) -> UserError:
    path = printable_path(Path(os.fsdecode(error.filename))) if error.filename else "a folder"
    return UserError(f"{path}: cannot be read ({error.strerror or error}); give yourself the right to read it")


def find_file(folder: Path, name: str) -> Path:
    """The file that a table or an annotation names, relative to `folder`.

    Where there is no such file: with slashes for the backslashes of Windows, or with letters and accents composed
    otherwise (a Mac writes an accent as a letter of its own). The path as written where that does not exist either.
    """
    for form in (name, name.replace("\\", "/")):
        for written in (form, unicodedata.normalize("NFC", form), unicodedata.normalize("NFD", form)):
            try:
                if (folder / written).exists():
                    return folder / written
            except (OSError, ValueError):  # too long, or with a NUL: no file has such a name
                break
    return folder / name


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
        UserError: the file is missing, cannot be read, or is not UTF-8 text (the line names the first such line).
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise missing_file(where, fix) from None
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror or error}); name a text file") from None
    if data.startswith(UTF16_MARKS):
        raise UserError(f"{where}: UTF-16 text, and UTF-8 is read; save it as UTF-8")
    return decode_text(data, where)


def decode_text(data: bytes, where: str) -> str:
    """UTF-8 text with or without a byte order mark; line ends are kept as they are.

    Raises:
        UserError: it is not UTF-8 text; the line of the file is named.
    """
    try:
        return data.decode("utf-8-sig")  # spreadsheets may put a byte order mark first
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{where}: line {line}: not UTF-8 text (byte 0x{data[error.start]:02x}); save it as UTF-8 "
            "(spreadsheets call it 'CSV UTF-8')"
        ) from None
