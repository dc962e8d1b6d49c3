"""What a YOLO set's data.yaml says: names of the classes, keypoints, task, and where the pictures of a split are."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from headstart.base.errors import UserError
from headstart.base.manifest import SPLITS, Split
from headstart.fetch.sources.paths import SPLIT_OF_FOLDER, read_text_file

TASKS = ("detect", "segment", "pose", "obb")
YAML_SUFFIXES = (".yaml", ".yml")
_NO_NAMES = "no list `names:` in it; write `names: [cat, dog]`"


@dataclass(frozen=True)
class YoloConfig:
    """The contents of data.yaml, or of a text file of names.

    Attributes:
        names: class number -> name; a class whose name is empty is not in it.
        keypoints: `kpt_shape`: how many keypoints a row has, and how many numbers (2 or 3) each; None: none.
        task: `task` where it is one of `TASKS`.
        path: `path`, the folder that `splits` are relative to, as written; empty: none.
        splits: entries of `train`, `val` and `test`, as written: folders, or text files that list pictures.
    """

    names: dict[int, str]
    keypoints: tuple[int, int] | None = None
    task: str | None = None
    path: str = ""
    splits: dict[Split, tuple[str, ...]] = field(default_factory=dict)


class _TextLoader(yaml.BaseLoader):
    """YAML without types: `no`, `1.0` and `2024-01-01` stay the text that the user wrote; no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        if len(mapping) < len(node.value):
            written = [key.value for key, _ in node.value]
            twice = next(key for key in written if written.count(key) > 1)
            raise yaml.constructor.ConstructorError(None, None, f"{twice!r} stands there twice", node.start_mark)
        return mapping


def read_config(path: Path, where: str) -> YoloConfig:
    """Read data.yaml, or a text file with the name of one class in each line (labelImg's classes.txt).

    Args:
        path: the file.
        where: how an error line begins: the key of params and the path as written there.

    Raises:
        UserError: the file is missing, has no names, or what it says contradicts itself.
    """
    text = read_text_file(path, where, "name data.yaml, or a text file with one class a line")
    if path.suffix.lower() not in YAML_SUFFIXES:
        # An empty line counts: the class number is that of the line.
        lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text)]
        return YoloConfig(_check_names(enumerate(lines), where))
    data = _load(text, where)
    return YoloConfig(
        names=_check_names(_numbered_names(data, where), where),
        keypoints=_parse_keypoints(data, where),
        task=data["task"] if data.get("task") in TASKS else None,
        path=_text(data, "path", where).replace("\\", "/"),
        splits=_parse_splits(data, where),
    )


def _load(text: str, where: str) -> dict[str, Any]:
    try:
        data = yaml.load(text, Loader=_TextLoader)  # noqa: S506 (makes text, lists and dictionaries alone)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        place = f" at line {mark.line + 1}" if mark else ""
        problem = str(getattr(error, "problem", None) or error).partition("\n")[0]
        raise UserError(f"{where}: {_NO_NAMES} (it is not valid YAML{place}: {problem})") from None
    except RecursionError:
        raise UserError(f"{where}: {_NO_NAMES} (it is nested too deeply)") from None
    if not isinstance(data, dict) or not data.get("names"):
        raise UserError(f"{where}: {_NO_NAMES}")
    return data


def _text(data: dict[str, Any], key: str, where: str) -> str:
    value = data.get(key) or ""
    if not isinstance(value, str):
        raise UserError(f"{where}: {key}: one text is expected, not a {type(value).__name__}; correct it")
    return value


def _parse_int(text: Any, least: int) -> int | None:
    """The whole number that a text is; None if it is none, or less than `least`."""
    if not isinstance(text, str) or not re.fullmatch(r"[0-9]{1,9}", text):
        return None
    return int(text) if int(text) >= least else None


def _numbered_names(data: dict[str, Any], where: str) -> list[tuple[int, str]]:
    """`names:` as numbers and names: a list, a mapping of numbers, or one word; `nc:` must agree."""
    names = data["names"]
    count = None
    if data.get("nc"):
        count = _parse_int(data["nc"], 1)
        if count is None:
            raise UserError(f"{where}: nc: {str(data['nc'])[:40]!r} is not a number of classes; correct it")
    if isinstance(names, str):
        if count not in (None, 1) or re.search(r"[,\[\]{}\n]|\.(txt|names)$" + ("" if count else r"|\s"), names):
            raise UserError(f"{where}: names: {names[:40]!r} is one text, not a list; write `names: [cat, dog]`")
        names = [names]
    numbered = list(names.items()) if isinstance(names, dict) else list(enumerate(names))
    pairs = []
    for number, name in numbered:
        index = _parse_int(number, 0) if isinstance(names, dict) else number
        if index is None:
            raise UserError(f"{where}: names: {str(number)[:40]!r} is not a class number; write `names: {{0: cat}}`")
        if not isinstance(name, str):
            raise UserError(f"{where}: names: class {index} is a {type(name).__name__}, not a text; {_NO_NAMES}")
        pairs.append((index, name))
    if count is not None and count != len(pairs):
        raise UserError(f"{where}: nc: {count}: but {len(pairs)} names; correct one of the two")
    return pairs


def _check_names(numbered: Iterable[tuple[int, str]], where: str) -> dict[int, str]:
    """Names stripped and in NFC; empty ones are left out, so that a box of such a class is an error.

    Raises:
        UserError: there is no name, a name for two classes, or a class with two names.
    """
    names: dict[int, str] = {}
    number_of: dict[str, int] = {}
    for number, written in numbered:
        name = unicodedata.normalize("NFC", written.strip())
        if not name:
            continue
        if number in names:
            raise UserError(f"{where}: names: class {number} has two names; take one out")
        if name in number_of:
            fix = "these two would be one; rename one of them, here or in a copy of the file"
            raise UserError(f"{where}: names: {name!r} stands for class {number_of[name]} and class {number}: {fix}")
        names[number], number_of[name] = name, number
    if not names:
        raise UserError(f"{where}: no name in it; write one class a line")
    return names


def _parse_keypoints(data: dict[str, Any], where: str) -> tuple[int, int] | None:
    shape = data.get("kpt_shape")
    if not shape:
        return None
    numbers = [_parse_int(number, 1) for number in shape] if isinstance(shape, list) else []
    if len(numbers) != 2 or numbers[0] is None or numbers[1] not in (2, 3):
        raise UserError(f"{where}: kpt_shape: write [number of keypoints, 2 or 3], such as [17, 3]")
    return numbers[0], numbers[1]


def _parse_splits(data: dict[str, Any], where: str) -> dict[Split, tuple[str, ...]]:
    """Entries by split; `valid` and `validation` are `val`. An empty `test:` (as in Ultralytics' own sets) is none."""
    splits: dict[Split, tuple[str, ...]] = {}
    for key, value in data.items():
        split = SPLIT_OF_FOLDER.get(key.lower()) if isinstance(key, str) else None
        if split is None or not value:
            continue
        entries = [value] if isinstance(value, str) else value
        if not isinstance(entries, list) or not all(isinstance(entry, str) and entry for entry in entries):
            raise UserError(f"{where}: {key}: a folder is expected, or a list of folders or of .txt files; correct it")
        if split in splits:
            raise UserError(f"{where}: {key}: a second key for the split {split!r}; leave one of the two")
        splits[split] = tuple(entry.replace("\\", "/") for entry in entries)
    return {split: splits[split] for split in SPLITS if split in splits}
