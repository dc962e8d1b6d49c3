"""What the folders of a source `folder` stand for: splits, classes, or a level above both."""

import re
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from headstart.base.errors import UserError, list_some
from headstart.fetch.sources.paths import SPLIT_OF_FOLDER, printable_path

Parts = tuple[str, ...]  # a picture's path below the source's folder: folders, then its file name


def find_split_level(inside: Collection[Parts], folder: str, *, label_given: bool) -> int | None:
    """Which part of the paths names the split: 0 (`train/ants/1.jpg`), 1 (`ants/train/1.jpg`), or None.

    A lone flat folder `train` beside class folders is a class, such as a vehicle's, and told on stderr.

    Args:
        inside: the paths of all pictures.
        folder: the source's folder as params name it.
        label_given: the source sets a label for all its pictures, so a single folder above the splits is no label.

    Raises:
        UserError: some folders are named like splits and others are not, and a split would become a label.
    """
    tops = sorted({parts[0] for parts in inside if len(parts) > 1})
    splits = [name for name in tops if _is_split(name)]
    others = [name for name in tops if not _is_split(name)]
    if splits and not others:
        return 0
    if splits:
        _check_lone_train(inside, folder, splits, others)
        return None
    inner = {parts[1].lower() for parts in inside if len(parts) > 2}
    pinned = {SPLIT_OF_FOLDER.get(name) for name in inner}
    are_all = all(len(parts) > 2 for parts in inside) and len(pinned) > 1 and None not in pinned
    if are_all and (len(tops) > 1 or label_given):
        print(f"fetch: folder: {folder}: splits are read from the folders inside the class folders", file=sys.stderr)
        return 1
    return None


def _is_split(name: str) -> bool:
    return name.lower() in SPLIT_OF_FOLDER


def _check_lone_train(inside: Iterable[Parts], folder: str, splits: list[str], others: list[str]) -> None:
    is_flat = all(len(parts) == 2 for parts in inside if parts[0] in splits)
    if len(splits) == 1 and splits[0].lower() == "train" and is_flat:
        print(
            f"fetch: folder: {folder}/{splits[0]}: read as a label, beside {_names(others)}; if it is a split, put "
            f"class folders into it and move {_names(others)} away",
            file=sys.stderr,
        )
        return
    raise UserError(
        f"folder: {folder}: folders named like splits ({_names(splits)}) lie beside others ({_names(others)}), and one "
        "kind would become labels; move one of them elsewhere, or make each folder a source with `split:` or `label:`"
    )


def check_class_level(inside: Collection[Parts], folder: str, split_level: int | None) -> None:
    """Check that the labels are not the names of folders above the class folders.

    Raises:
        UserError: all pictures lie deeper, in one folder that would be their only label; the line has the right path.
    """
    if split_level == 0:
        _check_inside_splits(inside, folder)
        return
    common = _common_folders(inside)
    if common and all(len(parts) > 2 for parts in inside):
        has_deeper = any(len(parts) > len(common) + 1 for parts in inside)
        path = printable_path(Path(folder, *(common if has_deeper else common[:-1])))
        raise UserError(
            f"folder: {folder}: all its pictures lie in the one folder {_names(common[:1])}, which would be their "
            f"label, and the folders in it would not count; write `folder: {path}`, or `label:` if that is their label"
        )
    if split_level is None:
        _check_split_words(inside, folder)
        _note_equal_folders(inside, folder)


def _common_folders(inside: Collection[Parts]) -> Parts:
    """The folders that all pictures share, from the top, as far as the first one that is named like a split."""
    common: list[str] = []
    for names in zip(*(parts[:-1] for parts in inside), strict=False):
        if len(set(names)) > 1 or _is_split(names[0]):
            break
        common.append(names[0])
    return tuple(common)


def _check_inside_splits(inside: Collection[Parts], folder: str) -> None:
    """The same for split folders: `train/images/ants/1.jpg`, and `train/train/ants/1.jpg` as some archives have it."""
    classes: dict[str, set[str]] = {}
    for parts in inside:
        classes.setdefault(parts[0], set()).add(parts[1])
    flat = {parts[0] for parts in inside if len(parts) < 4}
    single = {split: min(names) for split, names in classes.items() if len(names) == 1 and split not in flat}
    for split, name in sorted(single.items()):
        if len(single) == len(classes) or _is_split(name):
            path = printable_path(Path(folder, split, name))
            raise UserError(
                f"folder: {folder}: all pictures of {split} lie in the one folder {_names([name])}, which would be "
                f"their label; move its folders up into {folder}/{split}, or make each split a source of its own: "
                f"`folder: {path}` with `split: {SPLIT_OF_FOLDER[split.lower()]}`; or `label:` if that is their label"
            )


def _check_split_words(inside: Iterable[Parts], folder: str) -> None:
    """Raise UserError where `seg_train` and `seg_test` would become labels, and the same folders lie in both."""
    classes: dict[Parts, set[str]] = {}  # the folder above the class folders -> their names
    for parts in inside:
        if len(parts) > 2 and _split_in(parts[0]) is not None:
            depth = 2 if parts[1] == parts[0] and len(parts) > 3 else 1  # seg_train/seg_train/sea/1.jpg
            classes.setdefault(parts[:depth], set()).add(parts[depth])
    for first, names in sorted(classes.items()):
        others = [other for other, found in classes.items() if other != first and found & names]
        if others:
            tops = _names(folders[0] for folders in (first, *others))
            raise UserError(
                f"folder: {folder}: {tops} are named after splits and hold the same folders ({_names(names)}), but "
                "they would be the labels; name them train, val and test, with the class folders right in them, or "
                f"make each of them a source: `folder: {printable_path(Path(folder, *first))}` with `split: "
                f"{_split_in(first[0])}`"
            )


def _split_in(name: str) -> str | None:
    """The split that a word of a folder's name is: `test` of `seg_test`."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((SPLIT_OF_FOLDER[word] for word in words if word in SPLIT_OF_FOLDER), None)


def _note_equal_folders(inside: Collection[Parts], folder: str) -> None:
    """One line on stderr where each class folder has the same folders in it: they may be the classes."""
    inner: dict[str, set[str]] = {}
    for parts in inside:
        inner.setdefault(parts[0], set()).add(parts[1])
    first = next(iter(inner.values()))
    are_equal = len(inner) > 1 and len(first) > 1 and all(names == first for names in inner.values())
    if are_equal and all(len(parts) > 2 for parts in inside):
        print(
            f"fetch: folder: {folder}: labels are {_names(inner)}; the folders {_names(first)} in each of them do not "
            "count",
            file=sys.stderr,
        )


def _names(names: Iterable[str]) -> str:
    return list_some([printable_path(Path(name)) for name in sorted(names)], 5)
