"""Source `folder`: pictures in class folders (`ants/1.jpg`) or in split/class folders (`train/ants/1.jpg`)."""

from collections.abc import Iterator
from pathlib import Path

from headstart.base.errors import UserError
from headstart.fetch.sources.paths import (
    SPLIT_OF_FOLDER,
    has_split_folders,
    is_picture,
    printable_path,
    require_folder,
    walk_files,
)
from headstart.fetch.sources.records import LocalFile, Rejection, SourceImage


def list_images(folder: str, root: Path, *, label_given: bool) -> Iterator[SourceImage | Rejection]:
    """Every picture under a folder, sorted by path, labelled by its class folder.

    Args:
        folder: the folder, relative to `root`.
        root: the repository root.
        label_given: the source sets a label for all its pictures, so they need no class folder.

    Raises:
        UserError: there is no such folder, no class folder in it, or no picture.
    """
    top = require_folder("folder", folder, root)
    source = f"folder:{folder}"
    has_splits = has_split_folders(top)
    count = 0
    for path in walk_files(top):
        parts = path.relative_to(top).parts
        location = printable_path(Path(folder) / path.relative_to(top))
        if not is_picture(path):
            reason = f"not a picture by its name ({path.suffix or path.name})"
            yield Rejection(source, location, "other_file", reason, ignored=True)
            continue
        count += 1
        split = SPLIT_OF_FOLDER.get(parts[0].lower()) if has_splits else None
        classes = parts[1 if split else 0 : -1]
        if not classes and not label_given:
            fix = "one folder for each class" if not split else f"one folder for each class in {folder}/{parts[0]}"
            raise UserError(f"folder: {location}: this picture is in no class folder; make {fix}, or set `label:`")
        label = printable_path(Path(classes[0])) if classes else None
        yield SourceImage(location, source, LocalFile(path), label, split)
    if not count:
        raise UserError(f"folder: {folder}: no pictures in it; put some there, in one folder for each class")
