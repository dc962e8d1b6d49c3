"""Pictures that an annotation file names, found in the folder of pictures."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

from headstart.fetch.sources.paths import find_file, printable_path


class ListedFile(NamedTuple):
    """A picture that an annotation names: its file, how the user refers to it, and why it is not the picture."""

    path: Path
    location: str
    problem: str  # empty: none; the file may still be missing


def normalize_name(file_name: str) -> str:
    """A file name with slashes, and without `./`: two names that are equal then are of one picture."""
    return str(PurePosixPath(file_name.replace("\\", "/")))


def find_listed_files(file_names: Sequence[str], folder: Path, display_folder: str) -> list[ListedFile]:
    """The file of each name: below the folder as the name stands, else by its last part.

    Exporters prefix names with folders of their own machine. Where two names lead to one file that way, nobody can
    tell whose annotations are whose, so neither is used.

    Args:
        file_names: as written in the annotations, all different once they are normalized.
        folder: the folder of pictures.
        display_folder: that folder as written in params.
    """
    paths = [_find(folder, name) for name in file_names]
    names_of_path: dict[Path, list[str]] = defaultdict(list)
    for name, path in zip(file_names, paths, strict=True):
        names_of_path[path].append(name)
    found = []
    for name, path in zip(file_names, paths, strict=True):
        location = printable_path(Path(display_folder) / path.relative_to(folder))
        rivals = names_of_path[path]
        problem = ""
        if "\0" in name:
            problem = "no file can have such a name"
        elif len(rivals) > 1:
            problem = (
                f"its annotation names {name!r}, and {next(other for other in rivals if other != name)!r} leads to the "
                f"same file; put the pictures below {display_folder} in the folders that the annotations name"
            )
        found.append(ListedFile(path, location, problem))
    return found


def _find(folder: Path, file_name: str) -> Path:
    name = PurePosixPath(file_name.replace("\\", "/"))
    is_inside = not name.is_absolute() and ".." not in name.parts
    path = find_file(folder, file_name) if is_inside else folder / name.name
    if _exists(path) or not name.name:
        return path
    by_last_part = find_file(folder, name.name)
    if not _exists(by_last_part) and (decoded := unquote(file_name)) != file_name:  # `a%20b.jpg`, part of an address
        by_decoded = _find(folder, decoded)
        return by_decoded if _exists(by_decoded) else (path if is_inside else by_last_part)
    return by_last_part if _exists(by_last_part) or not is_inside else path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a NUL: no file has such a name
        return False
