"""The table of what each kind of source makes of an input: rows that are checked, and shown in docs/sources.md.

Each reader has its rows in `tests/fetch/sources/kinds_<kind>.py`, which `all_kinds()` finds by its name:

    from fetch.kinds import Kinds, boxes_of, error_of, rejected

    KINDS = Kinds("coco")

    @KINDS.row("swapped corners", "put right")
    def swapped(root: Path) -> None:
        ...  # write the input below `root`, then assert the outcome with boxes_of, rejected or error_of

`test_kinds.py` runs every row and compares the docs; `PYTHONPATH=tests python -m fetch.kinds` writes the docs' table.
"""

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headstart.base.errors import UserError
from headstart.fetch.boxes import convert_boxes
from headstart.fetch.sources.collect import collect_images
from headstart.fetch.sources.records import LocalFile, Rejection, SourceImage
from headstart.images.decode import PictureError, configured_pil, validate_picture
from pictures import params

DOCS = Path(__file__).parents[2] / "docs/sources.md"
BEGIN, END = "<!-- kinds: tests/fetch/kinds.py -->", "<!-- end of kinds -->"
Box = tuple[str, float, float, float, float]  # label, x, y, width, height in pixels of the upright picture


@dataclass(frozen=True)
class Kind:
    """One row: a kind of source, an input and its outcome in words, and the check that holds them together."""

    kind: str
    given: str
    outcome: str
    check: Callable[[Path], None]


class Kinds(list[Kind]):
    """The rows of one kind of source."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def row(self, given: str, outcome: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
        """Decorate the check of a row: a function of an empty folder, the repository root of a fetch."""

        def add(check: Callable[[Path], None]) -> Callable[[Path], None]:
            self.append(Kind(self.kind, given, outcome, check))
            return check

        return add


def boxes_of(root: Path, source: Mapping[str, Any], task: str = "detect") -> dict[str, list[Box]]:
    """Location -> boxes in pixels of the upright picture, of every picture that fetch would keep (all are decoded)."""
    return boxes_and_rejections(root, source, task)[0]


def rejected(root: Path, source: Mapping[str, Any], task: str = "detect") -> dict[str, str]:
    """Location -> reason of everything that fetch would reject."""
    return boxes_and_rejections(root, source, task)[1]


def error_of(root: Path, source: Mapping[str, Any], task: str = "detect") -> str:
    """The one line that stops the fetch."""
    with pytest.raises(UserError) as caught:
        boxes_and_rejections(root, source, task)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def boxes_and_rejections(
    root: Path, source: Mapping[str, Any], task: str = "detect"
) -> tuple[dict[str, list[Box]], dict[str, str]]:
    """Both of the above: location -> boxes of what is kept, location -> reason of what is not."""
    kept: dict[str, list[Box]] = {}
    lost: dict[str, str] = {}
    with configured_pil():
        for item in collect_images(params(source).fetch, root, boxes=task == "detect"):
            if isinstance(item, Rejection):
                lost[item.location] = item.reason
                continue
            try:
                kept[item.location] = _pixel_boxes(item)
            except (OSError, PictureError) as error:
                lost[item.location] = str(error)
    return kept, lost


def _pixel_boxes(item: SourceImage) -> list[Box]:
    assert isinstance(item.content, LocalFile)
    converted = convert_boxes(item, _validated(item.content.path.read_bytes()))
    return [(box.label, *box.bbox) for box in converted.boxes]


_validated = functools.lru_cache(maxsize=64)(validate_picture)  # hypothesis reads the same pictures again and again


def all_kinds() -> list[Kind]:
    """The rows of all readers, by the name of their module."""
    modules = sorted(path.stem for path in (Path(__file__).parent / "sources").glob("kinds_*.py"))
    return [kind for module in modules for kind in importlib.import_module(f"fetch.sources.{module}").KINDS]


def docs_table() -> str:
    """The rows as a Markdown table."""
    cells = [(f"`{kind.kind}`", kind.given, kind.outcome) for kind in all_kinds()]
    rows = "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in cells)
    return f"{BEGIN}\n| kind | what the files hold | what is made of it |\n|---|---|---|\n{rows}{END}"


if __name__ == "__main__":
    text = DOCS.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    DOCS.write_text(before + docs_table() + rest.split(END)[1], encoding="utf-8")
