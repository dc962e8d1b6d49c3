"""Source `folder`: pictures in class folders (`ants/1.jpg`) or in split/class folders (`train/ants/1.jpg`)."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from headstart.base.errors import UserError, list_some
from headstart.fetch.sources.layout import Parts, check_class_level, find_split_level
from headstart.fetch.sources.paths import (
    SPLIT_OF_FOLDER,
    is_picture,
    list_folders,
    printable_path,
    require_folder,
    walk_files,
)
from headstart.fetch.sources.records import LocalFile, Rejection, SourceImage


def list_images(folder: str, root: Path, *, label_given: bool) -> Iterator[SourceImage | Rejection]:
    """Every picture under a folder, sorted by path, labelled by its class folder.

    Folders named like splits (`train`, `validation`, `test_set`), above the class folders or in each of them, pin
    their pictures. What systems leave among the files (`__MACOSX`, `.DS_Store`) counts for nothing.

    Args:
        folder: the folder, relative to `root`.
        root: the repository root.
        label_given: the source sets a label for all its pictures, so they need no class folder.

    Raises:
        UserError: there is no such folder, no class folder in it, or no picture; a folder of it cannot be read; it
            lies above the class folders; or its folders are neither all splits nor all classes.
    """
    top = require_folder("folder", folder, root)
    source = f"folder:{folder}"
    files = walk_files(top)
    inside: dict[Path, Parts] = {path: path.relative_to(top).parts for path in files if is_picture(path)}
    if not inside:
        raise UserError(f"folder: {folder}: no pictures in it; put some there, in one folder for each class")
    split_level = find_split_level(inside.values(), folder, label_given=label_given)
    if not label_given:
        _check_class_folders(inside.values(), folder, split_level)
        check_class_level(inside.values(), folder, split_level)
        _note_empty_folders(top, folder, inside.values(), split_level)
    for path in files:
        location = printable_path(Path(folder) / path.relative_to(top))
        if path not in inside:
            yield _other_file(path, source, location)
            continue
        parts = inside[path]
        split = None if split_level is None else SPLIT_OF_FOLDER.get(parts[split_level].lower())
        classes = parts[1 if split_level == 0 else 0 : -1]
        yield SourceImage(
            location, source, LocalFile(path), printable_path(Path(classes[0])) if classes else None, split
        )


def _other_file(path: Path, source: str, location: str) -> Rejection:
    if path.is_symlink() and not path.exists():  # it may stand for a folder of pictures
        return Rejection(source, location, "missing", f"a link to {path.readlink()}, which is not there")
    reason = f"not a picture by its name ({path.suffix or path.name})"
    return Rejection(source, location, "other_file", reason, ignored=True)


def _check_class_folders(inside: Iterable[Parts], folder: str, split_level: int | None) -> None:
    """Raise UserError for a picture that lies beside the class folders."""
    for parts in inside:
        if len(parts) < (3 if split_level == 0 else 2):
            location = printable_path(Path(folder, *parts))
            above = f" in {folder}/{parts[0]}" if len(parts) > 1 else ""
            raise UserError(
                f"folder: {location}: this picture is in no class folder; make one folder for each class{above}, "
                "or set `label:`"
            )


def _note_empty_folders(top: Path, folder: str, inside: Iterable[Parts], split_level: int | None) -> None:
    """One line on stderr with the folders that would be classes or splits, and hold no picture."""
    full = {parts[:depth] for parts in inside for depth in (1, 2)}
    names: list[Parts] = [(name,) for name in list_folders(top)]
    if split_level == 0:
        names += [(*split, name) for split in names if split in full for name in list_folders(top / split[0])]
    empty = [printable_path(Path(folder, *parts)) for parts in names if parts not in full]
    if empty:
        print(f"fetch: folder: no picture in {list_some(empty, 5)}: not read as a label or a split", file=sys.stderr)
