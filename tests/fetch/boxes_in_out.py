"""For the readers' hypothesis tests: random boxes on four pictures, and what a reader may make of their file.

Of a well-formed file all boxes come out as they went in. Of a damaged one, each picture has all its boxes or is
rejected, or one line stops the fetch; never fewer boxes, never another exception.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from fetch.kinds import Box, boxes_and_rejections
from headstart.base.errors import UserError
from pictures import encoded, picture, put

SIZES = {"a.png": (40, 30), "b.png": (48, 36), "c.jpg": (31, 47), "d.png": (64, 20)}
LABELS = ("cat", "dog", "häher")
Drawn = dict[str, list[Box]]  # file name -> boxes


def put_pictures(folder: Path) -> None:
    """The four pictures, no two alike."""
    for seed, (name, size) in enumerate(SIZES.items()):
        if not (folder / name).exists():
            put(folder / name, encoded(picture(seed, size), "JPEG" if name.endswith("jpg") else "PNG"))


@st.composite
def _box(draw: st.DrawFn, name: str, step: float) -> Box:
    width, height = SIZES[name]
    x = draw(st.integers(0, int((width - 3) / step))) * step
    y = draw(st.integers(0, int((height - 3) / step))) * step
    right = draw(st.integers(int((x + 2) / step), int(width / step))) * step
    bottom = draw(st.integers(int((y + 2) / step), int(height / step))) * step
    return draw(st.sampled_from(LABELS)), x, y, right - x, bottom - y


def drawn(step: float = 0.25) -> st.SearchStrategy[Drawn]:
    """Up to three boxes on each picture, one at least, with corners at multiples of `step`."""
    lists = {name: st.lists(_box(name, step), max_size=3, unique=True) for name in SIZES}
    return st.fixed_dictionaries(lists).filter(lambda boxes: any(boxes.values()))


# What takes the place of a text or number of a JSON file.
json_damage = st.sampled_from(["null", "[]", "{}", "NaN", "-1e999", "\x00", "true", ""])


def damage_json(path: Path, place: int, damage: str) -> None:
    """Replace a piece of a JSON file: a text, a number, or what stands between two of them."""
    cells = re.split(r'(".*?"|[0-9.]+)', path.read_text())
    cells[place % len(cells)] = damage
    path.write_text("".join(cells))


def assert_all(root: Path, source: Mapping[str, Any], folder: str, expected: Drawn) -> None:
    """A well-formed file: every box of every picture, and no rejection."""
    kept, lost = boxes_and_rejections(root, source)
    assert lost == {}
    assert sorted(kept) == sorted(f"{folder}/{name}" for name in expected)
    _compare(kept, folder, expected)


def assert_all_or_rejected(root: Path, source: Mapping[str, Any], folder: str, expected: Drawn) -> None:
    """A damaged file: what is kept is right, what is not kept is named, or one line names the mistake."""
    caught: UserError | None = None
    try:
        kept, lost = boxes_and_rejections(root, source)
    except UserError as error:
        caught = error
    if caught is not None:
        assert "\n" not in str(caught)
        return
    missing = {f"{folder}/{name}" for name in expected} - set(kept) - set(lost)
    assert not missing, "neither kept nor rejected"
    _compare(kept, folder, expected)


def _compare(kept: dict[str, list[Box]], folder: str, expected: Drawn) -> None:
    for name, boxes in expected.items():
        if (found := kept.get(f"{folder}/{name}")) is not None:
            assert [box[0] for box in sorted(found)] == [box[0] for box in sorted(boxes)], name
            for one, other in zip(sorted(found), sorted(boxes), strict=True):
                assert one[1:] == pytest.approx(other[1:], abs=0.002)
